"""Verdicts on anybody's numbers: tidy tables, TensorBoard's and Weights & Biases' CSV exports.

sheets.py     files as cells with a place
formats.py    cells as measurements, in three layouts
tables.py     measurements as runs, and the question that is asked of them
command.py    `grpolab analyze` on files
"""
