"""Variants inside verl's synchronous trainer: verl samples, shards and steps, the maths is ours."""
