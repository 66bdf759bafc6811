"""The cards of a study's report: one class and one pair of templates per card."""
