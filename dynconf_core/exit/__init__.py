"""Exit rules: running them, their operating points, and their figures."""
