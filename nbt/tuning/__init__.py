"""Tuning: which settings are tried next, which trials are stopped, and what is recommended. Only this package imports Optuna."""
