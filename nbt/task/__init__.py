"""Task: a dataset and a pretrained backbone, and how they are loaded."""
