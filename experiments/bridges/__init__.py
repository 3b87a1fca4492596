"""Variants inside other trainers: TRL and verl generate and step, the maths is ours."""
