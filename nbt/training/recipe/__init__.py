"""The parts of a fine-tuning recipe: augmentation, loss, schedule, weight averaging, and the checks of a recipe."""
