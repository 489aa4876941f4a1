"""Runs of steps: queue, priorities that age, finite and online jobs, run-as rules."""
