"""Image datasets: location, reading, decoding and splitting."""
