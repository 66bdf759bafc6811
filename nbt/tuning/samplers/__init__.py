"""Samplers: which settings are proposed next."""
