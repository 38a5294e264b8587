"""When a cycle or a second look is due."""
