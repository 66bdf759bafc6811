"""The engine that runs trials on a Ray cluster. Only this package imports Ray."""
