"""Folders with trained models, and predictions with these models."""
