"""Every public function of the lab says which argument is wrong, and what it must be, before anything runs."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import GrpoLabError
from core.parts.arguments import checked
from experiments import lab

STUDY = lab.load_study(Path(__file__).parents[2] / "data" / "old_tree" / "runs" / "study")
SCORES = {arm: {seed: 0.1 * seed + shift for seed in range(4)} for arm, shift in (("a", 0.0), ("b", 0.5))}
VERDICTS = lab.judge(SCORES, baseline="a", margin=0.1)
BATCH = lab.Batch.of([[1.0, 0.0]])
NEEDED: dict[str, dict[str, Any]] = {
    "advantages": {"method": "grpo", "batch": BATCH},
    "compare": {"files": "demo"},
    "judge": {"measured": SCORES, "baseline": "a"},
    "lens": {"methods": "grpo"},
    "lens_off_policy": {"methods": "grpo"},
    "lens_turns": {"methods": "grpo"},
    "load_run": {"path": "runs"},
    "load_study": {"path": "runs"},
    "loss": {"method": "grpo", "batch": BATCH, "logps": torch.zeros(1, 2, 1)},
    "plot_coupling": {"judgement": VERDICTS},
    "plot_curves": {"source": {"a": {0: ([0, 1], [0, 1])}}},
    "plot_differences": {"judgement": VERDICTS},
    "plot_interquartile_means": {"judgement": VERDICTS},
    "plot_pass_at_k": {"study": STUDY},
    "plot_profile": {"judgement": VERDICTS},
    "plot_ranks": {"judgement": VERDICTS},
    "plot_scores": {"judgement": VERDICTS},
    "train": {},
    "variant": {"name": "grpo"},
    "Study.curves": {},
    "Study.report": {},
}
"""Of every function that is called: arguments that would do."""


def functions() -> dict[str, Callable[..., Any]]:
    named = {name: getattr(lab, name) for name in lab.__all__}
    return {name: each for name, each in named.items() if inspect.isfunction(each)} | {
        "Study.curves": STUDY.curves,
        "Study.report": STUDY.report,
    }


def parameters() -> Iterator[tuple[str, str]]:
    for name, function in functions().items():
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                yield name, parameter.name


class Nothing:
    """What no parameter takes."""


def test_every_public_function_is_here() -> None:
    assert NEEDED.keys() == functions().keys()


@pytest.mark.parametrize(("name", "parameter"), list(parameters()))
def test_a_wrong_type_is_an_error_that_names_the_parameter(name: str, parameter: str) -> None:
    with pytest.raises(GrpoLabError) as refused:
        functions()[name](**{**NEEDED[name], parameter: Nothing()})
    named = {"source": "nothing to draw", "measured": "nothing to judge", "batch": "batch", "study": "of a study"}
    named |= {"judgement": "verdicts", "method": "the method", "methods": "the method"}
    named |= {"ax": "pass@k"} if name == "plot_pass_at_k" else {}  # of this study there is nothing to draw
    assert named.get(parameter, f"{parameter} ") in f"{refused.value} "


@pytest.mark.parametrize("name", NEEDED)
def test_a_parameter_that_is_not_there_and_one_that_is_missing_are_named(name: str) -> None:
    with pytest.raises(GrpoLabError, match="nope"):
        functions()[name](**NEEDED[name], nope=1)
    for parameter in list(NEEDED[name])[:1] if name != "compare" else ["files"]:
        with pytest.raises(GrpoLabError, match=f"needs {parameter}: "):
            functions()[name]()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.judge(SCORES, baseline="a", margin="0.01"), r"^judge: margin = '0\.01': must be a number from"),
        (lambda f: f.judge(SCORES, baseline="a", alpha=95), "alpha = 95: must be a number above 0 and below 0.5$"),
        (lambda f: f.judge(SCORES, baseline="a", confidence=95), "no parameter 'confidence': it is alpha, 1 - the"),
        (lambda f: f.judge(SCORES, baseline=0), "baseline = 0: must be text in quotes"),
        (lambda f: f.judge(SCORES, baseline="a", family="any"), "family = 'any': must be 'baseline' or 'all'"),
        (lambda f: f.judge(SCORES, baseline="a", scalar="last"), "scalar = 'last': must be 'final' or 'auc'"),
        (lambda f: f.judge({1: {0: 0.5}, 2: {0: 0.6}}, baseline="1"), "arm 1: the name of an arm is text; call it '1'"),
        (lambda f: f.judge(SCORES, "a"), "takes measured without a name, and 2 values were given: name the others"),
        (lambda f: f.judge(SCORES, measured=SCORES, baseline="a"), "measured is given twice"),
        (lambda f: f.compare("demo", seeds="5"), "compare: seeds = '5': must be a whole number from 0 up, a list of"),
        (lambda f: f.compare("demo", seeds=["0", "1"]), r"compare: seeds = \['0', '1'\]: must be"),
        (lambda f: f.compare(7), "compare: files = 7: must be text in quotes, a path"),
        (lambda f: f.train(out=3), "train: out = 3: must be a path or text in quotes"),
        (lambda f: f.train(track="wandb"), "train: track = 'wandb': must be a list of texts in quotes"),
        (lambda f: f.load_study(3), "load_study: path = 3: must be a path or text in quotes"),
        (lambda f: f.lens("grpo", batches="9"), "lens: batches = '9': must be a whole number from 1"),
        (lambda f: f.lens("grpo", batches=2), "^batches 2: at least 20 are needed"),
        (lambda f: STUDY.curves(axis=3), r"Study\.curves: axis = 3: must be text"),  # type: ignore[arg-type]
        (lambda f: VERDICTS[3], r"Verdicts\.__getitem__: arm = 3: must be text"),  # type: ignore[index]
        (lambda f: STUDY[3, 0], "no run of 3 at seed 0 in .*: known: grpo, median, rloo"),  # type: ignore[index]
        (lambda f: STUDY["grpo", "0"], "no run of 'grpo' at seed '0'"),  # type: ignore[index]
        (lambda f: f.Batch.of([[1.0, 0.0]], values=[[[0.0], [0.0]]]), r"Batch\.values must be a tensor, not list"),
        (lambda f: f.Batch.of([[1.0, 0.0]], mask=[[[1], [1]]]), r"Batch\.mask must be a tensor, not list"),
        (lambda f: f.Batch.of([[1.0, 0.0]], greedy_rewards="x"), "greedy_rewards must be numbers"),
    ],
)
def test_mistakes_that_people_make(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        call(lab)


def test_numbers_of_numpy_and_ranges_are_numbers() -> None:
    @checked()
    def own(number: float, whole: int | None = None, wholes: tuple[int, ...] | list[int] | range = ()) -> int:
        """Of a test."""
        return len(wholes)

    loose: Any = [np.float32(0.5), np.int64(3), np.arange(2)]
    assert own(*loose) == 2
    judged = lab.judge(SCORES, baseline="a", margin=np.float64(0.1), answers=loose[1])
    assert len(judged) == 1


def test_distributions_are_drawn_of_verdicts_as_they_are() -> None:
    for draw in (lab.plot_interquartile_means, lab.plot_profile):
        assert draw(VERDICTS).get_xlabel()
