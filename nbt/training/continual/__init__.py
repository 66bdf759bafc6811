"""Continual learning on streams of tasks: scenarios, methods, penalties and results."""
