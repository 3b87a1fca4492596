"""What is logged of the mismatch between sampler and trainer."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core import CORRECTIONS, VARIANTS
from core.generation.base import Request
from core.generation.native import Native
from core.loop.correct import correct
from core.loop.loss import token_loss
from core.loop.rows import RowTensors
from core.model.policy import Policy

# log ratios of three tokens of one response, the fourth is masked: 2, 1 and 4 times the sampler's probability
BEHAVIOUR = torch.tensor([[-3.0, -2.0, -4.0, -1.0]])
OLD = BEHAVIOUR + torch.tensor([[math.log(2), 0.0, math.log(4), 9.0]])
MASK = torch.tensor([[True, True, True, False]])


def info(correction: Any, old: Tensor = OLD) -> dict[str, Tensor]:
    variant = replace(VARIANTS["grpo"](), correction=correction)
    rows = RowTensors(mask=MASK, advantages=torch.ones(1, 4), old_logps=old, behaviour_logps=BEHAVIOUR)
    rows["token_age"] = torch.zeros(1, 4, dtype=torch.long)
    return token_loss(variant, correct(variant, rows), old + 0.5, 1)[1]


def kept(name: str, old: Tensor = OLD, **hyper: float) -> list[float]:
    shares: list[float] = info(CORRECTIONS[name].using(**hyper), old)["correction_kept"][MASK].tolist()
    return shares


def test_sampler_kl_by_hand() -> None:
    """w - 1 - log w for the old policy's probability over the sampler's, w = 2, 1 and 4."""
    logged = info(None)
    assert logged["sampler_kl"][MASK].tolist() == pytest.approx([1 - math.log(2), 0.0, 3 - math.log(4)])
    assert "correction_kept" not in logged
    assert logged["sampler_mismatch"][MASK].tolist() == pytest.approx([math.log(2) + 0.5, 0.5, math.log(4) + 0.5])


def test_kept_are_the_tokens_whose_ratio_was_neither_truncated_nor_masked() -> None:
    assert kept("token_truncated", cap=3.0) == [1, 1, 0]
    assert kept("token_masked", low=1.5, high=3.0) == [1, 0, 0]
    assert kept("geometric_mean_masked", low=0.5, high=2.5) == [1, 1, 1]
    assert kept("geometric_mean_masked", low=0.5, high=1.5) == [0, 0, 0]
    # the response's ratio is 8
    assert kept("sequence_truncated", cap=9.0) == kept("sequence_masked", high=9.0) == [1, 1, 1]
    assert kept("sequence_truncated", cap=7.0) == kept("sequence_masked", high=7.0) == [0, 0, 0]


@pytest.mark.parametrize("name", sorted(CORRECTIONS))
def test_where_sampler_and_trainer_agree_all_is_kept(name: str) -> None:
    assert kept(name, BEHAVIOUR) == [1, 1, 1]


def test_the_mean_of_sampler_kl_estimates_the_divergence(tiny: Policy) -> None:
    """Sampled at temperature 1, trained at 0.8: the divergence of the first token is a sum over the vocabulary."""
    prompt = torch.tensor([3, 4, 5])
    (made,) = Native(0.75).generate(tiny, [Request([prompt], 4000, 1, 1.0, 5)])
    every = torch.arange(tiny.vocabulary)
    sampler, trainer = (
        tiny.logps([prompt], list(every[:, None]), [0] * len(every), width=1, temperature=t)[0][:, 0].detach()
        for t in (1.0, 0.8)
    )
    variant = VARIANTS["grpo"]()
    mask = torch.ones(4000, 1, dtype=torch.bool)
    old = trainer[made.tokens[0, :, 0]][:, None]
    rows = {"mask": mask, "advantages": torch.ones(4000, 1), "old_logps": old, "behaviour_logps": made.logps[0]}
    estimates = token_loss(variant, rows, old, 1)[1]["sampler_kl"]
    exact = float((sampler.exp() * (sampler - trainer)).sum())
    assert exact > 0.01
    assert float(estimates.mean()) == pytest.approx(exact, abs=4 * float(estimates.std()) / math.sqrt(4000))
