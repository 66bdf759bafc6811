"""Parts of a fine-tuning recipe: augmentation, loss, schedules, weight averaging, and checks."""
