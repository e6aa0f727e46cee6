"""Plans runs on hardware that you don't have: compiles their programs, and adds up the kernels' minimum times."""
