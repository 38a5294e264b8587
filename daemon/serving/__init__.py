"""Which version the replicas serve: promote, roll back, reconcile, prune."""
