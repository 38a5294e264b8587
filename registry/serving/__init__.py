"""Where versions are served: the one owner of HTTP to vLLM."""
