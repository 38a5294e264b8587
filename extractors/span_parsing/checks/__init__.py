"""What a call must fulfil before it may teach anything."""
