"""The worker: a Ray actor that runs trials, and what runs inside its process."""
