"""Ablations: a base, axes and a design, expanded to the arms of a study; and what a study will cost."""
