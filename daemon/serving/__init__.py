"""The version that the replicas serve: promote, roll back, reconcile, prune."""
