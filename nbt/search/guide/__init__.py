"""Guided search: what is known before a trial (profile, experience) and what its first epochs say, put to use."""
