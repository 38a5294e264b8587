"""When things happen: settings, scheduling, the cycle, the API, the gateway and the command line."""
