"""A finished cycle, written to Phoenix."""
