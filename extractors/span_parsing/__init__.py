"""One span becomes one call, whatever convention traced it, or a reason to drop it."""
