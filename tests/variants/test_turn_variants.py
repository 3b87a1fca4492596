"""Methods for episodes of several turns: what they are with one turn, and what dialects make of one example."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core import VARIANTS, Batch, Variant
from core.loop.loss import compute_advantages, step_loss
from estimators.advantages.anchors import group_in_group
from estimators.advantages.group import group_mean, group_mean_std
from tests.estimators.episodes import episodes, of_turns


def responses(seed: int = 0) -> tuple[Batch, Tensor]:
    """Ordinary responses of 1 to 5 tokens in float64, and the present policy's log-probabilities."""
    draw = torch.Generator().manual_seed(seed)

    def noise() -> Tensor:
        return torch.randn(3, 4, 5, generator=draw, dtype=torch.float64)

    rewards = torch.randn(3, 4, generator=draw, dtype=torch.float64)
    lengths = torch.randint(1, 6, (3, 4), generator=draw)
    lengths[0, 0] = 5
    logps = noise() - 3
    return Batch.of(rewards, lengths=lengths, old_logps=logps + noise() / 4, values=noise()), logps


def step(variant: Variant, batch: Batch, logps: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logps.clone().requires_grad_()
    loss = step_loss(variant, batch, leaf, compute_advantages(variant, batch, None)[0])
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


MEAN = replace(VARIANTS["grpo"](), advantage=group_mean)
USUAL = {
    "grpo_outcome": VARIANTS["grpo"](),
    "mt_grpo": replace(VARIANTS["grpo"](), advantage=group_mean_std.using(eps=1e-4)),
    "stepwise_grpo": VARIANTS["grpo"](),
    "grpo_per_turn": MEAN,
    "grpo_per_turn_padded": MEAN,
    "bilevel_ppo": VARIANTS["ppo"](),
}


@pytest.mark.parametrize("name", [*USUAL, "gigpo"])
def test_of_ordinary_responses_every_method_is_the_usual_one(name: str) -> None:
    batch, logps = responses()
    variant = VARIANTS[name]()
    if name == "gigpo":
        variant = replace(variant, advantage=group_in_group.using(omega=0.0))
    for actual, expected in zip(
        step(variant, batch, logps), step(USUAL.get(name, VARIANTS["grpo"]()), batch, logps), strict=True
    ):
        torch.testing.assert_close(actual, expected)


def test_dialects_of_group_in_group_by_hand() -> None:
    """The states s0, s1 with rewards 0, 1 and s0, s2, s3 with none, once more for another prompt with the outcome 4."""
    one, other = [[0.0, 1.0], [0.0, 0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0, 0.0]]
    batch = episodes([one, other], [[0.0, 0.0], [4.0, 0.0]], [[[1, 2], [1, 3, 4]], [[1, 2], [1, 5, 6]]])

    def first_turns(name: str) -> list[float]:
        advantages, _ = compute_advantages(VARIANTS[name](), batch, None)
        return [turns[0] for turns in of_turns(batch, advantages)[0]]

    # in the group: .5 for the episode and .95 / 2 for the state; counted by turn the mean is .4
    assert first_turns("gigpo_authors") == pytest.approx([0.6 + 0.475, -0.4 - 0.475])
    # in the batch: returns of 1, 0, 4, 0 in the state s0
    assert first_turns("gigpo_trinity") == pytest.approx([0.5 + 1 - 1.25, -0.5 - 1.25])
    assert first_turns("gigpo_roll") == pytest.approx([2 * 0.5**0.5, -2 * 0.5**0.5])
    assert first_turns("gigpo") == pytest.approx([2 * 0.5**0.5, -2 * 0.5**0.5], rel=1e-5)


def test_weights_of_steps_and_advantages_by_hand() -> None:
    """Two turns with outcome 1, one with 0: z = .7071, every turn a third; over 2 tokens -z / 3 a turn, +z / 3."""
    batch = episodes([[[0.0, 0.0], [0.0]]], [[1.0, 0.0]])
    batch = batch.having(old_logps=torch.zeros_like(batch.rewards)[..., None].expand(batch.mask.shape))
    variant = VARIANTS["stepwise_grpo"]()
    _, gradient = step(variant, batch, torch.zeros(batch.mask.shape, dtype=torch.float64))
    z = 0.5 / (0.5**0.5 + 1e-6)
    expected = torch.tensor([[[-z, -z, 0, -z, -z], [z, z, 0, 0, 0]]], dtype=torch.float64) / 6
    torch.testing.assert_close(gradient, expected)
