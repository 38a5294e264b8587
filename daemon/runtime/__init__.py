"""Process basics: child processes, locks, paths, clock, logs, and a target's context."""
