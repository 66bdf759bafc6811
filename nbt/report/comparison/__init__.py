"""Comparison of studies of the same images."""
