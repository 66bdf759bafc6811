"""Priors and pruning in reports: what was expected of settings, and what the trials made of it."""
