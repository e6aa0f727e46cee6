"""Programs for devices that are not here: compiled, read, and planned with."""
