"""What a part returns is checked where it is used: broadcasting would hide the mistake."""

import pytest
import torch
from torch import Tensor

from core import Batch, GrpoLabError, Part, Variant
from core.loop.rewards import filter_groups
from core.parts.contracts import check_shape
from core.parts.options import AdvantageOptions, AggregatorOptions, ObjectiveOptions
from estimators.advantages.group import group_mean
from estimators.aggregators import token_mean
from estimators.objectives.token import clip


def part_of(kind: str, function: object) -> Part:
    """A part that is not registered."""
    return Part(kind=kind, function=function, is_resolved=True)  # type: ignore[arg-type]


def per_response(batch: Batch) -> Tensor:
    """[P, G] where [P] is due."""
    return torch.ones_like(batch.rewards, dtype=torch.bool)


def test_a_filter_must_return_one_verdict_a_group() -> None:
    variant = Variant(
        advantage=group_mean, objective=clip, aggregator=token_mean, filter=part_of("filter", per_response)
    )
    with pytest.raises(GrpoLabError, match=r"filter 'per_response'.*returned \[2, 3\], but must return \[2\]"):
        filter_groups(variant, Batch.of([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]))


def test_a_scalar_or_a_number_is_no_token_loss() -> None:
    for result, shown in ((torch.tensor(1.0), r"\[\]"), (0.5, "float"), (torch.ones(4, 1), r"\[4, 1\]")):
        with pytest.raises(GrpoLabError, match=rf"returned {shown}, but must return \[4, 7\]"):
            check_shape(clip, result, (4, 7))
    check_shape(clip, torch.ones(4, 7), (4, 7))


def test_options_are_typed_by_kind_and_those_of_another_kind_are_refused() -> None:
    assert AdvantageOptions.of(group_mean).min_group == 2
    assert AdvantageOptions.of(group_mean).first_state() is None
    assert ObjectiveOptions.of(clip).level == "row"
    assert AggregatorOptions.of(token_mean).split_invariant
    with pytest.raises(TypeError, match="the objective 'clip' has no AdvantageOptions"):
        AdvantageOptions.of(clip)
