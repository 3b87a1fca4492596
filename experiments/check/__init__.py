"""The contract suite: what must hold of a part of each kind, and properties that are reported.

One module per kind of part; `suite.py` puts them together, `files.py` finds the parts to check.
"""
