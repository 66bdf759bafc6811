"""The storage of studies and streams: trials, final runs and results."""
