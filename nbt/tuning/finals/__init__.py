"""The final runs of a study: which settings are run again, and the training of the recommended model."""
