"""Surrogate models of the metric as a function of the settings."""
