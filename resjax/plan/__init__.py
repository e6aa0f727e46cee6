"""Plans a run on hardware that you don't have, by compiling its programs and adding up their kernels' minimum times."""
