"""Spark computes, the core commits."""
