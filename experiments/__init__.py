"""Runs as values, a file for each data set or recipe; installed as `resjax.experiments`."""
