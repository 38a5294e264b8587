"""Reading and deciding a batch of synthetic examples."""
