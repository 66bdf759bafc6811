"""Training with given settings: fine-tuning runs, streams of tasks, and source models."""
