"""Examples as Parquet and JSONL, and back without loss."""
