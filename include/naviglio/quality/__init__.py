"""Proof that two sides hold the same rows."""
