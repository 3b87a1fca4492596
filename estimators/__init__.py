"""The maths: pure functions on tensors. Importing the package registers every part."""

from estimators import advantages, aggregators, corrections, filters, kl, objectives, shaping, values

__all__ = ["advantages", "aggregators", "corrections", "filters", "kl", "objectives", "shaping", "values"]
