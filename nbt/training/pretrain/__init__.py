"""Source models that are trained here, and the zapping protocols."""
