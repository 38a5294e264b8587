"""Recovery from lack of memory, divergence or a kill."""
