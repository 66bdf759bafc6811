"""The task: a dataset with a pretrained backbone, and how it is loaded."""
