"""State that a worker keeps between trials: model, images, starting weights and cached features."""
