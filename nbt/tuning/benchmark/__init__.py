"""Replay: search methods compared on recorded learning curves, through the controller that runs live."""
