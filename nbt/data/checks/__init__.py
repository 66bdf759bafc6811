"""Checks of the data, codes NBT1xx: one check per file."""
