"""The experiments, with one file per data set or recipe; installed as `resjax.experiments`."""
