"""Learning a stream of tasks: scenarios, methods, penalties and results."""
