"""Everything that runs and that people use: settings, the cycle, the API, the gateway, the command line."""
