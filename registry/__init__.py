"""The versions and cycles that exist, the versions that are live, and the replicas that serve them."""
