"""Search spaces: dimensions, parsing, random sampling, and the encoding of settings for the surrogate models."""
