"""Everything read from Phoenix and written to it: client, mirror, poll, experiments."""
