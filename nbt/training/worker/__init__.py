"""What a worker keeps between the trials that it runs: model, images, starting weights and cached features."""
