"""Who is asking: tokens, accounts, sessions, request limits."""
