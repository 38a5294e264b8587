"""Several ways to train compete on one loaded base, and are compared on the validation side."""
