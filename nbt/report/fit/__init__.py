"""Fit profiles in reports: measures, plots, sentences, and their correlation with the accuracy of trials."""
