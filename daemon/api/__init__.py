"""The HTTP API, a router a file."""
