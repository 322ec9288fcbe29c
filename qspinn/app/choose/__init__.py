"""Selecting among the records of runs."""
