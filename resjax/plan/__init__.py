"""Plans runs on hardware that you don't have, by compiling programs and adding up their minimum time."""
