"""The table of variants: a whole step, from rewards to the gradient of the loss, by each reference and by ours.

A reference may coincide with a method when it is set to, and compute something else by default: its default is then a
dialect, a variant of its own, which is compared as well.
"""

from experiments.maintenance.conformance.comparison import Comparison
from experiments.maintenance.conformance.whole_openrlhf import with_openrlhf
from experiments.maintenance.conformance.whole_trl import with_trl
from experiments.maintenance.conformance.whole_verl import with_verl
from experiments.maintenance.conformance.whole_verl_corrected import with_verl_corrected


def comparisons() -> list[Comparison]:
    """Every row of the table."""
    return [*with_trl(), *with_verl(), *with_verl_corrected(), *with_openrlhf()]
