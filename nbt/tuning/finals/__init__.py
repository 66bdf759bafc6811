"""The final runs of a study and the training of the recommended model."""
