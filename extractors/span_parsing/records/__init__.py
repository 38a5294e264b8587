"""What single records of a call show, and all of them together."""
