"""Examples as tokens and batches; shared prefixes computed once."""
