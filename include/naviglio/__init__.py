"""Carries changed rows from operational databases, through a data lake, into a SQL warehouse."""

__version__ = "0.1.0"
