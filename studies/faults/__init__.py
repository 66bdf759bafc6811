"""The campaign of `studies/faults.py`: searches, kinds of faults, checks, bad inputs, and the table of the results."""
