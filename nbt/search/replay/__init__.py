"""Replay: search methods compared on recorded learning curves, through the brain that runs live."""
