"""From a snapshot to a trained adapter: the choice of method, and the training."""
