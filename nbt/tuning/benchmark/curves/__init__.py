"""Benchmark of search methods on generic tables of learning curves, without images, fit profile and priors."""
