"""Plans for hardware that you don't have: programs are compiled, analysed, and converted to hours."""
