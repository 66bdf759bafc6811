"""What is done with a trained model: predictions, evaluation on labelled images, and export to other formats."""
