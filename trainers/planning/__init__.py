"""Which method, with which hyperparameters, within which limits."""
