"""Backbones as ordered units, and pretrained weights. Knows no data."""
