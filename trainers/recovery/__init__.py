"""What happens after out-of-memory, divergence or a kill."""
