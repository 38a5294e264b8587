"""One training stage in a child process, from job to adapter."""
