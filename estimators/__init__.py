"""The maths: pure functions on tensors. Importing the package registers every part."""

# isort: off
from estimators import limits  # first: the parts that follow are registered with them

# isort: on
from estimators import advantages, aggregators, corrections, filters, kl, objectives, shaping, values

__all__ = ["advantages", "aggregators", "corrections", "filters", "kl", "limits", "objectives", "shaping", "values"]
