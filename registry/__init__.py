"""What exists, what is live, and where it is served."""
