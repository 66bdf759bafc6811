"""Image datasets: where they are, how they are read, decoded and split. Knows no models."""
