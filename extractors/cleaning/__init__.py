"""What is removed or replaced before training: flaws, near-duplicates, personal data."""
