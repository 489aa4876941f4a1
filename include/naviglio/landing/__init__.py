"""The landing: append-only batches of changes, each one manifest."""
