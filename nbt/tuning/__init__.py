"""The search: sampling and pruning of trials, final runs, experience and storage.

Only this package imports Optuna.
"""
