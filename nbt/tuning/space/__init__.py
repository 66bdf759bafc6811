"""Search spaces: what a search may vary, and settings as points for the models."""
