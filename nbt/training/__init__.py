"""Training with known settings: one fine-tuning run, streams of tasks, and source models."""
