"""Files, processes, signals and messages. Nothing here depends on networks."""
