"""Supervised fine-tuning: the log-likelihood of given responses, for a `train.source` of worked solutions.

    loss = -1/N sum_i sum_t log pi(y_it)

The prompt has no loss. What RL gains is what it gains over this, or from where this has come to.
"""

from core import Part, Variant, variant
from estimators.advantages.group import no_baseline
from estimators.aggregators import token_mean
from estimators.objectives.likelihood import log_likelihood


@variant
def sft(*, advantage: Part = no_baseline, objective: Part = log_likelihood, aggregator: Part = token_mean) -> Variant:
    """Every token of every response made likelier, whatever its reward: imitation."""
    return Variant(advantage=advantage, objective=objective, aggregator=aggregator)
