"""Priors: rules that suggest settings from the fit profile, before any trial."""
