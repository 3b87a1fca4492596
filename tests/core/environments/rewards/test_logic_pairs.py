"""Answers labelled by others: by hand, by walking trees of formulas, by reasoning-gym's own oracle. Never by us."""

import json
from collections import Counter
from pathlib import Path

import pytest

from core.environments.rewards.logic import truth_table, who_is_who
from core.parts.problems import Problem

PAIRS = [json.loads(line) for line in Path(__file__).with_name("logic_pairs.jsonl").read_text().splitlines()]
REWARDS = {"truth_table": truth_table, "who_is_who": who_is_who}

MISSED = {
    "<answer>A is a knight, the others: B knave, C knight</answer>",
    "<answer>Ava is the only knight; the other two are knaves.</answer>",
    "<answer>Everyone except Ava is a knave, Ava is a knight</answer>",
}
"""Responses that are right and not accepted."""


def test_no_wrong_answer_is_accepted_and_no_right_one_refused_but_those_listed() -> None:
    accepted, refused = [], []
    for pair in PAIRS:
        score = REWARDS[pair["reward"]](Problem("", "", 0, pair["data"]), pair["response"])
        assert score.value == float(score.correct)
        for verdict, label in ((score.correct, pair["correct"]), (score.lenient, pair["lenient"])):
            if verdict and not label:
                accepted.append(pair["response"])
            if label and not verdict:
                refused.append(pair["response"])
    assert not accepted
    assert set(refused) == MISSED
    assert len(MISSED) < 0.02 * sum(pair["lenient"] for pair in PAIRS)


def test_the_pairs_are_many_and_of_every_kind() -> None:
    assert len({json.dumps(pair) for pair in PAIRS}) == len(PAIRS) >= 300
    by = Counter(pair["by"] for pair in PAIRS)
    assert set(by) == {"hand", "trees", "reasoning-gym"}
    kinds = Counter((p["data"]["logic"]["kind"] if "logic" in p["data"] else "islanders", p["correct"]) for p in PAIRS)
    assert min(kinds.values()) >= 7
    assert len(kinds) == 12


@pytest.mark.parametrize("reward", ["truth_table", "who_is_who"])
def test_a_grader_that_says_yes_to_all_would_fail(reward: str) -> None:
    labels = [pair["correct"] for pair in PAIRS if pair["reward"] == reward]
    assert 0.3 < sum(labels) / len(labels) < 0.7
