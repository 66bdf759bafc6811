"""Surrogate models: predictions of the accuracy from the settings."""
