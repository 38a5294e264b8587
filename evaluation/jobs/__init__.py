"""The child processes: evaluate, median seed, readiness, probes."""
