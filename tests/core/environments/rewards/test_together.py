"""Rewards of different kinds in one recipe, by weight."""

from pathlib import Path

import experiments
from core.loop.recipe import Recipe
from core.loop.scoring import start
from core.parts.problems import Problem
from core.parts.registry import config
from experiments.study.configs import build

EMBEDDED = Path(experiments.__file__).parent / "configs" / "embedded.gin"


def test_the_answer_and_its_format_by_weight() -> None:
    bindings = [
        "train.rewards = [@math_answer, @think_answer]",
        "train.reward_weights = [1.0, 0.1]",
        "math_answer.form = 'answer_tag'",
        "think_answer.tags = ('think', 'answer')",
    ]
    with config([EMBEDDED], bindings):
        recipe = build("train")
    assert isinstance(recipe, Recipe)
    problem, response = Problem("2+2=", "4", 0), "<think>2 and 2</think><answer>4</answer>"
    assert [part(problem, response).value for part in recipe.rewards] == [1.0, 1.0]
    assert [part(problem, "<answer>4</answer>").value for part in recipe.rewards] == [1.0, 0.0]
    assert recipe.reward_weights == (1.0, 0.1)
    assert "math-verify" in start(recipe.rewards)["math_answer"]
