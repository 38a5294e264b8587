"""The weight of each held-out item, so that the holdout represents the traffic."""
