"""The storage of studies: the one source of truth on trials, final runs and results."""
