"""Pruners: early stopping of unpromising trials."""
