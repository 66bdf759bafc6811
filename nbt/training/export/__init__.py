"""Trained models as folders, and predictions from them."""
