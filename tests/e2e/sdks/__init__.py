"""Agents on public SDKs, which call a real vLLM through the real gateway, and what is learned of it."""
