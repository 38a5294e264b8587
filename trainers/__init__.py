"""Which method, and the trained adapter."""
