"""Priors and pruning in reports: prior expectations, forecasts, stopped trials, and their agreement with the trials."""
