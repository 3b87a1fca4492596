"""`grpolab judge`: what is measured, by numbers that can be redone by hand, and the command from end to end."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.model.policy import PolicySettings, load_policy
from experiments.cli.main import main
from experiments.feedback.judge_agreement import order
from experiments.statistics.agreement import Bin, agreement


def test_agreement_by_hand() -> None:
    """Question 1: .9 and .3 right, .4 wrong: one of two pairs. Question 2: .2 wrong, .2 right: a tie."""
    result = agreement([[0.9, 0.3, 0.4], [0.2, 0.2, math.nan]], [[True, True, False], [False, True, True]])
    assert (result.questions, result.responses, result.unjudged) == (2, 6, 1)
    assert result.right == 3 / 5
    assert result.accuracy == 3 / 5  # .9 and .4, and the wrong .2
    assert (result.within.value, result.within.pairs) == (1.5 / 3, 3)
    # over all: .9 beats .4 and .2; .3 beats .2 only; .2 ties with .2
    assert result.overall.value == pytest.approx(3.5 / 6)
    assert result.overall.pairs == 6
    # [.2, .4): .3, .2, .2, of which two are right; [.4, .6): wrong; [.8, 1]: right
    assert [(b.low, b.responses) for b in result.calibration] == [(0.2, 3), (0.4, 1), (0.8, 1)]
    assert [b.right for b in result.calibration] == pytest.approx([2 / 3, 0, 1])
    assert result.calibration_error == pytest.approx((3 * abs(0.7 / 3 - 2 / 3) + 0.4 + 0.1) / 5)


def test_the_interval_is_over_questions() -> None:
    """Two questions with a pair each, one won: r = 1/2, sum of squares 1/2, so 1/2 ± t sqrt(2 * 1/2) / 2, cut."""
    result = agreement([[1.0, 0.0], [0.0, 1.0]], [[True, False], [True, False]])
    assert result.within.value == 0.5
    assert result.within.interval == (0.0, 1.0)
    one = agreement([[1.0, 0.0]], [[True, False]])
    assert (one.within.value, one.within.interval) == (1.0, None)
    none = agreement([[1.0, 0.0]], [[True, True]])
    assert (none.within.value, none.within.pairs) == (None, 0)
    assert agreement([[1.0]], [[True]]).calibration == (Bin(0.8, 1.0, 1, 1.0, 1.0),)
    with pytest.raises(ValueError, match="same shape"):
        agreement([[1.0]], [[True, False]])


def test_the_interval_covers_what_it_should() -> None:
    """Nominal 95 % on 60 questions with 4 responses, each right response above each wrong one with probability .7."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        right = rng.random((60, 4)) < 0.4
        # P(N(d, 1) > N(0, 1)) = Phi(d / sqrt 2) = .7
        values = 1 / (1 + np.exp(-(rng.standard_normal(right.shape) + 0.7416 * right)))
        interval = agreement(values, right).within.interval
        assert interval is not None
        hits += interval[0] <= 0.7 <= interval[1]
    assert 0.92 <= hits / 300 <= 0.98


@given(st.lists(st.tuples(st.integers(0, 64), st.booleans()), min_size=2, max_size=12))
def test_values_turned_round_turn_the_shares_round(rows: list[tuple[int, bool]]) -> None:
    # sixty-fourths, which 1 - v keeps exactly
    values, right = np.array([[v / 64 for v, _ in rows]]), [[r for _, r in rows]]
    result, reversed_result = agreement(values, right).overall, agreement(1 - values, right).overall
    assert reversed_result.pairs == result.pairs
    assert result.value is None or reversed_result.value == pytest.approx(1 - result.value)


def test_the_order_of_two_responses_by_hand() -> None:
    """The first pair is decided by its place, the second wrongly by the responses, the third has no right one."""
    result = order([(0.9, 0.8, 1), (0.9, 0.2, -1), (0.9, 0.2, 0), (math.nan, 0.5, 1)])
    assert result is not None
    assert result.pairs == 3
    assert result.first == pytest.approx((0.9 + 0.8 + 0.9 + 0.2 + 0.9 + 0.2) / 6)
    assert result.by_place == pytest.approx(1 / 3)
    # pair 1: right with i first, wrong with j first; pair 2: j is right and loses both times
    assert (result.one_order.value, result.one_order.pairs) == (1 / 4, 4)
    assert order([]) is None


@pytest.fixture
def small(tiny_folder: Path, tmp_path: Path) -> list[str]:
    """Bindings of a judge that knows nothing, with room for a question."""
    tiny = load_policy(PolicySettings(str(tiny_folder)))
    tiny.model.config.max_position_embeddings = 1024
    tiny.save(tmp_path / "judge")
    (tmp_path / "principles.txt").write_text("1+1=2")
    bindings = [
        f"judge.model = '{tmp_path / 'judge'}'",
        f"judge.principles = '{tmp_path / 'principles.txt'}'",
        "judge.verdicts = ('1', '0')",
        "train.prompts = 3",
    ]
    return [word for binding in bindings for word in ("-b", binding)]


@pytest.mark.parametrize("mode", ["score", "compare"])
def test_the_command_measures_and_says_the_same_again(
    mode: str, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["judge", "-c", "rlaif", *small, "-b", f"judge.mode = '{mode}'", "--questions", "5", "--samples", "3"]
    records = []
    for _ in range(2):
        assert main([*command, "--json"]) == 0
        records.append(json.loads(capsys.readouterr().out))
    first, second = records
    assert first.pop("seconds") > 0
    second.pop("seconds")
    assert first == second
    assert (first["gold"], first["mode"]) == ("final_digit", mode)
    assert (first["agreement"]["responses"], first["agreement"]["unjudged"]) == (15, 0)
    assert len(first["agreement"]["calibration"]) >= 1
    assert (first["order"] is None) == (mode == "score")
    if mode == "compare":
        assert first["order"]["pairs"] > 3
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "15 responses to 5 questions" in shown
    assert ("place decides" in shown) == (mode == "compare")


def test_without_a_judge_there_is_nothing_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", "-c", "embedded"]) == 2
    assert "train.rewards names no judge" in capsys.readouterr().err
    assert main(["judge", "-c", "rlaif", "--samples", "1"]) == 2
    assert "--samples = 1: must be a whole number from 2 up" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_learns_from_a_judge_alone(small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The judge's values are what is trained on, the verifier's what is tested, and the manifest names the judge."""
    bindings = ["train.steps = 2", "train.group_size = 2", "evaluation.questions = 2", "train.checkpoint_every = 2"]
    words = [word for binding in bindings for word in ("-b", binding)]
    assert main(["train", "-c", "rlaif", *small, *words, "--out", str(tmp_path / "runs")]) == 0
    folder = tmp_path / "runs" / "train" / "grpo" / "seed=0"
    description = json.loads((folder / "manifest.json").read_text())["preflight"]["judge"]
    assert "mode score, principles" in description
    groups = json.loads((folder / "rollouts" / "step=000001.json").read_text())
    rewards = [response["reward"] for group in groups for response in group["responses"]]
    assert rewards
    assert all(0 < reward < 1 for reward in rewards), "a verifier's would be 0 or 1"
