"""What several tests share: servers, stand-ins, tiny models, and makers of examples, runs and pages."""
