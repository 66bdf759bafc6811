"""Samplers: proposals of the settings of the next trial."""
