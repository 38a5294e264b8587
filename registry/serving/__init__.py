"""Serving of versions on replicas: the one owner of HTTP to vLLM."""
