"""`learnd demo`: the whole loop on real parts, on this machine, with a corpus of its own."""
