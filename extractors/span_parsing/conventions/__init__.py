"""One reader for each convention of tracers, and for the bodies of requests and responses."""
