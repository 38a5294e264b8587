"""What each held-out item counts for, so that the holdout represents the traffic."""
