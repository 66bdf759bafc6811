"""Backbones as ordered units, and their pretrained weights."""
