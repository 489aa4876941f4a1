"""The ways to find what changed in a source; each turns one table's reading into a part."""
