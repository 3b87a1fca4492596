"""What a study declares: the test, the budget's axis, failure handling, races and predictions, and mistakes in them."""

import pytest

from core import GrpoLabError
from experiments.setup import import_parts
from experiments.study.configs import CONFIGS
from experiments.study.settings import Claim
from experiments.study.study import (
    Study,
    prepare_study,
)

import_parts()
TWO = "compare.variants = [@grpo, @rloo]"
CLAIM = ("claim.question = 'Is it?'", "claim.source = 'me'")


def study(*bindings: str) -> Study:
    return prepare_study([str(CONFIGS / "embedded.gin")], [TWO, *bindings])


def test_defaults() -> None:
    expected = {
        "scalar": "final",
        "axis": "steps",
        "budget": 40,
        "failures": "worst",
        "floor": 0.0,
        "threshold": None,
        "questions": "fixed",
    }
    declared = study().declaration
    assert {key: declared[key] for key in expected} == expected
    assert declared["seeds"] == [0, 1, 2, 3, 4]
    assert (declared["race"], declared["looks"], declared["claim"]) == (False, (), None)


def test_a_token_budget_makes_tokens_the_axis() -> None:
    declared = study("train.token_budget = 50000").declaration
    assert (declared["axis"], declared["budget"]) == ("sampled_tokens", 50000)
    timed = study("train.seconds_budget = 90.0").declaration
    assert (timed["axis"], timed["budget"]) == ("seconds", 90.0)


def test_everything_declared_is_hashed() -> None:
    changes = (
        "compare.scalar = 'auc'",
        "compare.failures = 'intersect'",
        "compare.floor = 0.1",
        "compare.threshold = 0.5",
        "compare.questions = 'population'",
        "compare.seeds = 6",
        "train.token_budget = 50000",
        "compare.alpha = 0.1",
        "compare.looks = ((5, 0.05),)",
    )
    assert len({study().hash, *(study(change).hash for change in changes)}) == len(changes) + 1


def test_the_order_of_seeds_is_declared() -> None:
    assert study("compare.seeds = [3, 1, 2]").seeds == (3, 1, 2)
    assert prepare_study([str(CONFIGS / "embedded.gin")], [TWO, "compare.seeds = 9"], (0, 1)).seeds == (0, 1)


def test_a_claim_is_declared() -> None:
    text = "rloo > grpo on test/accuracy by 0.02"
    made = study(*CLAIM, f"claim.predictions = ['{text}']")
    assert made.settings.claim == Claim("Is it?", "me", (text,))
    assert made.declaration["claim"] == {"question": "Is it?", "source": "me", "predictions": (text,)}


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["compare.scalar = 'best'"], "compare.scalar = 'best': must be 'final' or 'auc'"),
        (["compare.failures = 'drop'"], "compare.failures = 'drop': must be 'worst' or 'intersect'"),
        (["compare.family = 'each'"], "compare.family = 'each': must be 'baseline' or 'all'"),
        (["compare.axis = 'seconds'"], "that runs are to spend: bind train.seconds_budget"),
        (["compare.axis = 'hours'"], "compare.axis = 'hours': must be 'sampled_tokens', 'seconds', 'steps' or None"),
        (["compare.axis = 'steps'", "train.seconds_budget = 9.0"], "ends the runs at different steps"),
        (["train.seconds_budget = 9.0", "train.token_budget = 9"], "a run is ended by one of them"),
        (["compare.questions = 'all'"], "compare.questions = 'all': must be 'fixed' or 'population'"),
        (["compare.questions = 'population'", "compare.scalar = 'auc'"], "takes compare.scalar = 'final'"),
        (["compare.axis = 'sampled_tokens'"], "needs the budget that runs are to spend: bind train.token_budget"),
        (["compare.axis = 'steps'", "train.token_budget = 9"], "ends the runs at different steps"),
        (["train.token_budget = 0"], "train.token_budget = 0: must be a whole number from 1 up or None"),
        (["compare.seeds = 0"], "compare.seeds = 0: must be at least one seed"),
        (["compare.seeds = [1, 1]"], r"compare.seeds = \[1, 1\]: must be at least one seed, all different"),
        (["compare.race = True"], "compare.race with 5 seeds: a race needs at least 10"),
        (["compare.race = True", "compare.seeds = 10", "compare.looks = ((8, 0.05),)"], "raced or has looks, not both"),
        (["compare.race = True", "compare.seeds = 10", "compare.failures = 'intersect'"], "takes failures = 'worst'"),
        (["compare.looks = ((8, 0.05),)"], "the last look takes 8 seeds, but 5 are declared"),
        (["compare.looks = ((4, 0.04), (5, 0.04))"], "sum to 0.08 > alpha"),
        (["compare.looks = (3, 4)"], r"compare.looks = \(3, 4\): must be a list of tuples \(a whole number"),
        (["compare.looks = ((3, 0.05),)"], "the last look takes 3 seeds, but 5 are declared"),
        (["compare.threshold = 'x'"], "compare.threshold = 'x': must be a number"),
        (["compare.floor = None"], "compare.floor = None: must be a number"),
        (["compare.questions = 'population'", "compare.metric = 'test/pass_at_k'"], "a metric SUITE/accuracy"),
        ([*CLAIM, "claim.predictions = ['rloo beats grpo']"], "'rloo beats grpo' cannot be read"),
        ([*CLAIM, "claim.predictions = 'rloo > grpo on test/accuracy by 1'"], "claim.predictions = .* must be a list"),
        ([*CLAIM, "claim.predictions = ['rlo > grpo on test/accuracy by 1']"], "is about 'rlo', which is not an arm"),
        ([*CLAIM, "claim.predictions = ['rloo > grpo on test/acuracy by 1']"], "did you mean test/accuracy"),
        ([*CLAIM], "claim.predictions is not set"),
    ],
)
def test_mistakes(bindings: list[str], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        study(*bindings)
