"""Benchmark of search methods on recorded learning curves, run by the same controller as a live search."""
