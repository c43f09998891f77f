"""What a reader judges by: the metrics of a setting and its figures."""
