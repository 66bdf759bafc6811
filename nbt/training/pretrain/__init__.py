"""Training of source models, and the transfer protocols of the zapping paper."""
