"""The choice of method, hyperparameters and limits for a snapshot."""
