"""Files, processes, signals and messages. Nothing in this package depends on neural networks."""
