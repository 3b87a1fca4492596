"""What the lens is pointed at, by name: a variant, or an advantage estimator alone."""

from core import ADVANTAGES, VARIANTS, Part, Variant
from core.errors import GrpoLabError, near
from estimators.aggregators import seq_mean_token_sum
from estimators.objectives import policy_gradient


def named_variant(name: str) -> Variant:
    """The variant of that name, or an advantage as the variant that measures the estimator itself.

    Called within a gin config; what is returned no longer asks it.
    """
    if name in VARIANTS:
        variant: Variant = VARIANTS[name]()
    elif name in ADVANTAGES:
        variant = advantage_alone(ADVANTAGES[name])
    else:
        raise GrpoLabError(
            f"unknown variant or advantage '{name}': {near(name, [*VARIANTS, *ADVANTAGES])}. One of your own is found "
            "after its file, FILE.py, or -c FILE.gin that imports it"
        )
    return variant.resolved()


def advantage_alone(advantage: Part) -> Variant:
    """An advantage with the plain policy gradient and the token sum, under which an unbiased one has a scale of 1."""
    return Variant(advantage=advantage, objective=policy_gradient, aggregator=seq_mean_token_sum, name=advantage.name)
