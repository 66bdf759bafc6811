"""Checks of the result of a search, codes NBT2xx: one check per file."""
