"""What variants make of another turn: the bias of baselines by turn in closed form, then what theory says of others."""

import itertools
import math

import pytest
import torch

from core import Batch, GrpoLabError
from estimators.advantages.turns import per_turn_mean, per_turn_mean_padded, per_turn_mean_std_padded
from experiments.lens.enumerate import expected_gradient
from experiments.lens.named import named_variant
from experiments.lens.on_turns import VALUES_0, check_on_turns, decisions, measure_on_turns, push, worth
from experiments.lens.policy import TabularPolicy
from experiments.lens.search import CALLS, make_search
from tests.experiments.lens.worlds import stop_or_go

UNPADDED, PADDED, PADDED_STD = (part.name for part in (per_turn_mean, per_turn_mean_padded, per_turn_mean_std_padded))


def pushed(policy: TabularPolicy, name: str, group_size: int) -> float:
    gradient, _ = expected_gradient(policy, named_variant(name), groups=1, group_size=group_size)
    return float(push(policy, gradient).mean())


def test_a_group_by_hand() -> None:
    """Two episodes stop with 1; two take a turn that pays 0.5 and end with 1. The mean return is 1.25."""
    numbers = torch.tensor([[[1, 0], [1, 0], [1, 2], [1, 2]]])
    for paid in (0.5, -0.5):
        batch = Batch.of(
            [[1.0, 1.0, 1.0 + paid, 1.0 + paid]],
            mask=numbers > 0,
            turns=numbers,
            turn_rewards=torch.where(numbers == 2, paid, 0.0),
        )
        assert per_turn_mean(batch)[..., 0].tolist() == [[0, 0, 0, 0]]
        assert per_turn_mean_padded(batch)[..., 0].tolist() == [[-paid / 2, -paid / 2, paid / 2, paid / 2]]
        # (0, 0, paid, paid) in their std, paid / sqrt(3): the size of what was paid is gone
        z = math.copysign(math.sqrt(3) / 2, paid)
        assert per_turn_mean_std_padded(batch, eps=0.0)[0, :, 0].tolist() == pytest.approx([-z, -z, z, z])


@pytest.mark.parametrize("group_size", [2, 3, 4])
def test_the_closed_form(group_size: int) -> None:
    """c = 0.5, s = 1, i = 1, m = 0.5: going on is worth 0.5 and has a gradient of 0.125, of which nothing is left."""
    policy = stop_or_go(c=0.5, stop=1.0, go=1.0, more=0.5)
    assert decisions(policy).tolist() == [0]
    assert worth(policy) == pytest.approx([0.5])
    assert push(policy, policy.true_gradient).tolist() == pytest.approx([0.125])
    # all of them subtract a mean that has the episode itself in it
    own = (group_size - 1) / group_size
    assert pushed(policy, UNPADDED, group_size) == pytest.approx(0, abs=1e-12)
    assert pushed(policy, PADDED, group_size) == pytest.approx(0.125 * own)
    assert pushed(policy, "group_mean", group_size) == pytest.approx(0.125 * own)
    assert pushed(policy, "leave_one_out", group_size) == pytest.approx(0.125)


@pytest.mark.parametrize(
    ("c", "stop", "go", "more"), [(0.5, 1.0, 1.0, 0.5), (0.3, 0.2, 0.7, 0.9), (0.8, 0.6, 0.1, 0.4)]
)
def test_a_turn_loses_what_it_earns(c: float, stop: float, go: float, more: float) -> None:
    """c (1 - c) (i - s) instead of c (1 - c) (i + m - s), whatever the further turn pays: bonus and cost do nothing."""
    for pays in (1.0, 0.5, -2.0, 3.0):
        policy = stop_or_go(c, stop, go, more, pays)
        own = 2 / 3 * c * (1 - c)
        assert float(push(policy, policy.true_gradient)) == pytest.approx(c * (1 - c) * (go + pays * more - stop))
        assert pushed(policy, UNPADDED, 3) == pytest.approx(own * (go - stop))
        assert pushed(policy, PADDED, 3) == pytest.approx(own * (go + pays * more - stop))


def test_a_std_of_each_turn_breaks_it_again() -> None:
    """Going on for 1 or for nothing more, each as often: the sign of the push is that of z-scores, not of returns."""
    policy = stop_or_go(c=0.5, stop=1.1, go=1.0, more=0.5, pays=0.1)
    assert worth(policy) == pytest.approx([-0.05])
    assert pushed(policy, PADDED, 4) < 0 < pushed(policy, PADDED_STD, 4)


def test_measured_on_the_search() -> None:
    names = ["leave_one_out", "dr_grpo", "grpo", UNPADDED, "gae"]
    measured = measure_on_turns([named_variant(name) for name in names], turns=2, group_size=2)
    assert list(measured.numbers) == [*names, "gae" + VALUES_0]
    numbers, pushes = measured.numbers, measured.pushes
    for name in ("leave_one_out", "dr_grpo", "gae", "gae" + VALUES_0):
        assert numbers[name]["direction_bias_squared"] < 1e-12
        for paid, true in measured.true_pushes.items():
            torch.testing.assert_close(pushes[name][paid], true)
    assert numbers["leave_one_out"]["scale"] == pytest.approx(1)
    assert numbers["dr_grpo"]["factor"] == pytest.approx(0.5)
    assert numbers["gae"]["variance"] < numbers["gae" + VALUES_0]["variance"]
    # in stds of the group a small cost counts as much as a large gain
    assert (pushes["grpo"][-0.2] < pushes["leave_one_out"][-0.2]).all()
    # calls in the first turn are all that another turn follows on
    assert decisions(measured.policy).tolist() == [0]
    for (low, one), (high, other) in itertools.pairwise(measured.true_pushes.items()):
        torch.testing.assert_close(other - one, torch.full((3,), CALLS * (1 - CALLS) * (high - low)).double())
        torch.testing.assert_close(pushes[UNPADDED][low], pushes[UNPADDED][high])


def test_three_turns_have_two_decisions() -> None:
    policy = make_search(3)
    # at the beginning, and after a miss by a poor query, by a good one, and after a hit
    assert len(decisions(policy)) == 4
    for name in ("leave_one_out", PADDED):
        gradient, moments = expected_gradient(policy, named_variant(name), groups=1, group_size=2)
        torch.testing.assert_close(gradient / moments.along, policy.true_gradient)
    assert pushed(policy, UNPADDED, 2) / 0.5 != pytest.approx(
        float(push(policy, policy.true_gradient).mean()), abs=0.01
    )


def test_what_episodes_do_not_have_is_refused() -> None:
    with pytest.raises(GrpoLabError, match="'greedy_baseline' needs greedy_rewards"):
        check_on_turns(named_variant("greedy_baseline"), 4)
    with pytest.raises(GrpoLabError, match="defined from 2 samples"):
        check_on_turns(named_variant("leave_one_out"), 1)
