"""Reports: one HTML file that opens without a network, of a reproduction, a sweep or an analysis."""
