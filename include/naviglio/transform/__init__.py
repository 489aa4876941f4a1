"""Transforms: which days to compute again, Spark to compute them, and a check of what it wrote."""
