"""Whole data sets through a model, on every device of the cluster, each row exactly once."""
