"""Where tracers write a call: the conventions, and the bodies of requests and responses."""
