"""The maths: pure functions on tensors. Importing the package registers every part."""

# isort: off
from estimators import limits  # first: the parts that follow are registered with them

# isort: on
from estimators import (
    advantages,
    aggregators,
    corrections,
    credit,
    filters,
    kl,
    objectives,
    rejections,
    selections,
    shaping,
    values,
)

__all__ = [
    "advantages",
    "aggregators",
    "corrections",
    "credit",
    "filters",
    "kl",
    "limits",
    "objectives",
    "rejections",
    "selections",
    "shaping",
    "values",
]
