"""Readers: one file for each layout of a dataset."""
