"""Tasks of the package reasoning-gym, by name: procedurally generated problems with verifiers of their own."""

import hashlib
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from core.contracts import reward, task
from core.errors import GrpoLabError
from core.problems import Problem, Score
from core.registry import REQUIRED, Part
from core.tasks.patterns import IN_WORDS

_SPLITS: Final = {"tune": (0,), "test": (1,), "train": tuple(range(2, 8))}
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def extract_answer(response: str) -> str | None:
    """The content of the last <answer> tag, else the last number, thousands separators removed; None if neither."""
    tagged = _TAG.findall(response)
    if tagged:
        return str(tagged[-1]).strip()
    numbers = _NUMBER.findall(response)
    return str(numbers[-1]).replace(",", "") if numbers else None


@reward
def verified(problem: Problem, response: str) -> Score:
    """1 if the data set's own verifier gives the extracted answer full marks, else 0; lenient: it gives some."""
    answer = extract_answer(response)
    if answer is None:
        return Score(0.0, correct=False, cause="no answer")
    marks = float(problem.data["score"](answer))
    return Score(float(marks >= 1), marks >= 1, lenient=marks > 0)


@dataclass(frozen=True)
class ReasoningGym:
    """A data set with the chat turns that go before each question."""

    dataset: Any
    turns: tuple[tuple[str, str], ...]
    rewards: tuple[Part, ...] = (verified,)
    suites: tuple[str, ...] = ("test",)
    patterns: Mapping[str, str] = field(default_factory=lambda: IN_WORDS)
    mixed: bool = False
    """Whether questions come from several data sets (`composite`), which are then their families."""

    def problem(self, split: str, seed: int, index: int) -> Problem:
        """Problem `index` of the stream that `seed` picks; raises on an unknown split.

        Splits are parts of all questions by hash, so a question is in one only; within a split questions may repeat, as
        often as the generator draws them.
        """
        if split not in _SPLITS:
            raise GrpoLabError(f"reasoning_gym has no split '{split}'; it has: {', '.join(_SPLITS)}")
        attempt = 0
        while True:
            # an item is a function of data set seed + place alone, so places are spread by hash, not counted up
            place = int.from_bytes(_digest(f"{split}/{seed}/{index}/{attempt}")[:6], "little")
            entry = self.dataset[place]
            question = str(entry["question"]).strip()
            if _digest(question)[0] % 8 in _SPLITS[split]:
                break
            attempt += 1
        messages = [{"role": role, "content": content} for role, content in (*self.turns, ("user", question))]
        score = lambda answer: self.dataset.score_answer(answer=answer, entry=entry)  # noqa: E731
        source = str(entry["metadata"]["source_dataset"])
        # of one data set alone all questions would be one family, as if there were a single question
        return Problem(messages, str(entry["answer"]), index, {"score": score}, source if self.mixed else "")


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


@task
def reasoning_gym(
    *, dataset: str = REQUIRED, parameters: Mapping[str, Any] | None = None, turns: Sequence[tuple[str, str]] = ()
) -> ReasoningGym:
    """Any generator of reasoning-gym: its name, its parameters, and (role, content) chat turns before each question.

    `composite` mixes several: `parameters = {'datasets': [{'name': 'chain_sum', 'weight': 1, 'config': {}}, ...]}`.
    """
    try:
        package = importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise GrpoLabError(
            "the task reasoning_gym needs its package: make real, or pip install reasoning-gym"
        ) from error
    given = dict(parameters or {})
    try:
        if dataset == "composite":
            spec = importlib.import_module("reasoning_gym.composite").DatasetSpec
            given["datasets"] = [spec(**each) for each in given.get("datasets", ())]
        made = package.create_dataset(dataset, seed=0, size=1, **given)
    except (ValueError, TypeError, AssertionError) as error:
        raise GrpoLabError(f"reasoning_gym.dataset = {dataset!r} with {dict(parameters or {})}: {error}") from error
    shown = tuple((str(role), str(content)) for role, content in turns)
    return ReasoningGym(made, shown, mixed=dataset == "composite")
