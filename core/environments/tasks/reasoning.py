"""Tasks of the package reasoning-gym, by name: procedurally generated problems with verifiers of their own.

Some of these verifiers run the answer as a program, and some accept what is wrong: they are asked in a process that is
shut in, and not before they have been tried.
"""

import functools
import hashlib
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_letters
from typing import Any, Final, Literal

from core.environments.sandbox import Scorer, require, sandbox
from core.environments.tasks.patterns import IN_WORDS
from core.errors import GrpoLabError
from core.parts.contracts import reward, task
from core.parts.problems import Problem, Score
from core.parts.registry import REQUIRED, Part

_SPLITS: Final = {"tune": (0,), "test": (1,), "train": tuple(range(2, 8))}
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")

_TRIED: Final = 5
"""Problems of each data set that its verifier is tried on."""
_DRAWN: Final = 1000
"""Problems that may be drawn until one is of the split that is asked for."""
_NONSENSE: Final = "I do not know"
# what an answer that is evaluated may be made of, beside single letters: sympy's numbers and elementary functions
_NAMES: Final = (
    "sympy Integer Float Rational Symbol Function Add Mul Pow Abs Min Max E I pi oo zoo nan GoldenRatio EulerGamma "
    "sqrt cbrt root exp log ln sin cos tan cot sec csc asin acos atan atan2 acot asec acsc sinh cosh tanh coth sech "
    "csch asinh acosh atanh acoth asech acsch floor ceiling sign factorial factorial2 binomial gamma erf erfc erfi Si "
    "Ci Ei li Shi Chi LambertW Heaviside Piecewise abs min max round int float pow divmod sum"
)


def extract_answer(response: str) -> str | None:
    """The content of the last <answer> tag, else the last number, thousands separators removed; None if neither."""
    tagged = _TAG.findall(response)
    if tagged:
        return str(tagged[-1]).strip()
    numbers = _NUMBER.findall(response)
    return str(numbers[-1]).replace(",", "") if numbers else None


@dataclass(frozen=True, eq=False)
class Source:
    """The data set that problems come from, and how to make it once more: `create(name, **parameters)`."""

    name: str
    dataset: Any
    create: Any
    parameters: Mapping[str, Any]
    parts: tuple[str, ...]
    """Names of the data sets that it mixes."""

    @functools.cache  # noqa: B019 - a few for a process, which keep processes of their own
    def scorer(self, level: str) -> Scorer:
        """Its verifier, shut in at `level`."""
        names = [*_NAMES.split(), *ascii_letters]
        return Scorer(level, self.create, (self.name,), self.parameters, method="score_answer", names=names)

    def marks(self, answer: str, entry: Mapping[str, Any], level: str, seconds: float) -> tuple[float, str | None]:
        """Marks from 0 to 1 for an answer, and why there are none for a reason of its own."""
        return self.scorer(level).score(seconds, answer=answer, entry=entry)


def _ready(*, task: Any, level: str, seconds: float) -> str:
    """How far the data set's verifier is shut in; refuses one that cannot be, and one that is seen to be wrong."""
    if not isinstance(task, ReasoningGym):
        raise GrpoLabError(
            "the reward 'verified' works with the task reasoning_gym only: bind another to train.rewards"
        )
    in_force = require(level, "verified.level")
    _refuse_wrong(task.source, in_force, seconds)
    return f"verifier of {task.source.name}, in a process of its own, {seconds:g} s an answer; {sandbox()}"


@functools.cache
def _refuse_wrong(source: Source, level: str, seconds: float) -> None:
    """Raise unless a verifier gives its own answers full marks, and none to nonsense and the answers of others."""
    for family, problems in _drawn(source).items():
        own = [extract_answer(f"<answer>{problem.answer}</answer>") or "" for problem in problems]

        def right(answer: str, problem: Problem) -> bool:
            return source.marks(answer, problem.data["entry"], level, seconds)[0] >= 1

        faults = []
        refused = sum(not right(answer, problem) for answer, problem in zip(own, problems, strict=True))
        if refused:
            faults.append(f"refuses its own answer to {refused} of {len(problems)} problems, {own[0]!r:.60} to one")
        for what, answers in (
            (repr(_NONSENSE), [_NONSENSE] * len(problems)),
            ("the question as the answer", [_question(problem) for problem in problems]),
            ("an empty answer", [""] * len(problems)),
        ):
            accepted = sum(map(right, answers, problems))
            if accepted:
                faults.append(f"accepts {what} to {accepted} of {len(problems)} problems")
        others = [(a, p) for a in own for p, answer in zip(problems, own, strict=True) if a != answer]
        accepted_others = [(a, p) for a, p in others if right(a, p)]
        if 2 * len(accepted_others) > len(others):
            answer, problem = accepted_others[0]
            faults.append(
                f"accepts the answers to other problems, in {len(accepted_others)} of {len(others)} cases: "
                f"{answer!r:.60} to {_question(problem)!r:.100}"
            )
        if faults:
            raise GrpoLabError(
                f"reasoning_gym.dataset = {source.name!r}: the verifier of {family} "
                f"{'; it '.join(faults)}. Nothing can be learnt from it: choose another data set, or bind another "
                "reward to train.rewards"
            )


def _drawn(source: Source) -> dict[str, list[Problem]]:
    """A few problems of each data set that a source is made of."""
    names = source.parts or (source.name,)
    task = ReasoningGym(source, (), mixed=bool(source.parts))
    drawn: dict[str, list[Problem]] = {name: [] for name in sorted(names)}
    for index in range(_DRAWN):
        problem = task.problem("train", 0, index)
        of = drawn.setdefault(problem.family or source.name, [])
        if len(of) < _TRIED:
            of.append(problem)
        if all(len(problems) >= _TRIED for problems in drawn.values()):
            break
    return {family: problems for family, problems in drawn.items() if problems}


def _question(problem: Problem) -> str:
    return str(problem.data["entry"]["question"]).strip()


@reward(parallel=True, start=_ready, limits={"seconds": (0.01, 3600)})
def verified(
    problem: Problem,
    response: str,
    *,
    level: Literal["rlimits", "namespaces", "bubblewrap"] = "namespaces",
    seconds: float = 3.0,
) -> Score:
    """1 if the data set's own verifier gives the extracted answer full marks, else 0; lenient: it gives some.

    The verifier is asked in a process of its own, in the strongest sandbox that the machine gives, and not at all where
    that is below `level` (`core.environments.sandbox.levels`): some run the answer as a program. One that makes more of
    it than a sum scores 0, and so does one that takes longer than `seconds` of processor time, or ten times that by
    the clock.
    """
    answer = extract_answer(response)
    if answer is None:
        return Score(0.0, correct=False, cause="no answer")
    in_force = require(level, "verified.level")
    marks, cause = problem.data["source"].marks(answer, problem.data["entry"], in_force, seconds)
    return Score(float(marks >= 1), marks >= 1, lenient=marks > 0, cause=cause)


@dataclass(frozen=True)
class ReasoningGym:
    """A data set with the chat turns that go before each question."""

    source: Source
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
        for entry in self._entries(f"{split}/{seed}/{index}"):
            question = str(entry["question"]).strip()
            if _digest(question)[0] % 8 in _SPLITS[split]:
                break
        else:
            raise GrpoLabError(
                f"reasoning_gym.dataset = {self.source.name!r} has too few questions: none of {_DRAWN} falls into "
                f"the split '{split}'; choose another data set or other parameters"
            )
        messages = [{"role": role, "content": content} for role, content in (*self.turns, ("user", question))]
        source = str(entry["metadata"]["source_dataset"])
        data = {"source": self.source, "entry": entry}
        # of one data set alone all questions would be one family, as if there were a single question
        return Problem(messages, str(entry["answer"]), index, data, source if self.mixed else "")

    def _entries(self, stream: str) -> Iterator[Mapping[str, Any]]:
        """Problems as the package makes them, of one stream."""
        for attempt in range(_DRAWN):
            # an item is a function of data set seed + place alone, so places are spread by hash, not counted up
            place = int.from_bytes(_digest(f"{stream}/{attempt}")[:6], "little")
            try:
                yield self.source.dataset[place]
            except Exception as error:  # somebody else's generator
                raise GrpoLabError(
                    f"reasoning_gym.dataset = {self.source.name!r} cannot make a problem: {type(error).__name__}: "
                    f"{error}; choose another data set or other parameters"
                ) from error


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
            "the task reasoning_gym needs the package reasoning-gym: pip install 'grpo-lab[real]'"
        ) from error
    shown = tuple((str(role), str(content)) for role, content in turns)
    identity = repr((dataset, parameters))
    if identity not in _SOURCES:
        _SOURCES[identity] = _source(package, dataset, dict(parameters or {}))
    source = _SOURCES[identity]
    return ReasoningGym(source, shown, mixed=bool(source.parts))


_SOURCES: Final[dict[str, Source]] = {}
"""Those of this process: their verifiers have processes of their own, which are kept."""


def _source(package: Any, dataset: str, parameters: dict[str, Any]) -> Source:
    arguments = dict(parameters)
    try:
        if dataset == "composite":
            spec = importlib.import_module("reasoning_gym.composite").DatasetSpec
            arguments["datasets"] = [spec(**entry) for entry in arguments.get("datasets", ())]
        data = package.create_dataset(dataset, seed=0, size=1, **arguments)
    except (ValueError, TypeError, AssertionError) as error:
        raise GrpoLabError(f"reasoning_gym.dataset = {dataset!r} with {parameters}: {error}") from error
    parts = tuple(str(entry.name) for entry in arguments.get("datasets", ())) if dataset == "composite" else ()
    return Source(dataset, data, package.create_dataset, {"seed": 0, "size": 1, **arguments}, parts)
