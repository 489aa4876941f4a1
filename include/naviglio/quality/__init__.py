"""Proves that source, lake and target agree, and names what differs."""
