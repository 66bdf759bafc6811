"""The fit profile in reports: measures, plots, sentences, and their correlation with trials."""
