"""Pruners: which trials are stopped early."""
