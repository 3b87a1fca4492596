"""The contract suite: what must hold of a part of each kind, and what is worth knowing about it.

One module per kind of part; `suite.py` puts them together, `command.py` is `grpolab check`.
"""
