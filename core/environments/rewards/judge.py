"""A language model as the reward: it judges responses by written principles (RLAIF)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from core.environments.judges.endpoint import Endpoint, check_endpoint, endpoint
from core.environments.judges.local import check_local, local_judge
from core.environments.judges.prompts import VERDICTS, JudgePrompter, digest, read_principles
from core.errors import GrpoLabError
from core.model.loading import Dtype
from core.parts.contracts import reward
from core.parts.problems import Problem, Score
from core.parts.registry import REQUIRED
from core.web import check_address, is_address

_LIMITS: Final = {
    "opponents": (2, 1000),
    "seconds": (0.01, 3600),
    "parallel": (1, 256),
    "budget": (1, 10**12),
}


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """The hyper-parameters of `judge`."""

    model: str
    principles: str
    mode: Literal["score", "compare"]
    verdicts: Sequence[str]
    reference: bool
    opponents: int
    dtype: Dtype
    name: str
    key_variable: str
    seconds: float
    parallel: int
    cache: str
    budget: int

    @property
    def words(self) -> tuple[str, str]:
        """The two verdicts, the favourable one first."""
        words = tuple(self.verdicts) or VERDICTS[self.mode]
        if len(words) != 2 or not all(isinstance(word, str) and word.strip() for word in words):
            raise GrpoLabError(f"judge.verdicts = {self.verdicts!r}: must be two words, e.g. ('Yes', 'No')")
        return words[0], words[1]

    @property
    def endpoint(self) -> Endpoint:
        """Who is asked at an address, and within what bounds."""
        return Endpoint(
            url=self.model.rstrip("/"),
            name=self.name,
            key_variable=self.key_variable,
            seconds=self.seconds,
            parallel=self.parallel,
            cache=self.cache,
            budget=self.budget,
        )

    def prompter(self) -> JudgePrompter:
        """What puts questions to this judge."""
        backend = endpoint(self.endpoint) if is_address(self.model) else local_judge(self.model, self.dtype)
        return JudgePrompter(backend, read_principles(self.principles), self.words, self.reference)


def _ready(**hyper: Any) -> str:
    """Who judges, how and by what; refuses a judge that cannot be asked."""
    settings = JudgeSettings(**hyper)
    model, words = settings.model, settings.words
    if not isinstance(model, str) or not model:
        raise GrpoLabError(
            "judge.model is not set: bind a model as for policy.model, or the address of a server that speaks OpenAI's "
            "protocol, e.g. judge.model = 'http://localhost:8000/v1'"
        )
    if is_address(model):
        check_address("judge.model", model)
    principles = read_principles(settings.principles)
    if is_address(model):
        how = f"{settings.name} at {model}, {check_endpoint(settings.endpoint, words)}"
    else:
        check_local(model, words)
        how = f"{model} ({settings.dtype})"
    known = ", told the right answer" if settings.reference else ""
    return f"judge {how}, mode {settings.mode}, principles {settings.principles} ({digest(principles)}){known}"


@reward(together=True, start=_ready, limits=_LIMITS)
def judge(
    problems: Sequence[Problem],
    responses: Sequence[Sequence[str]],
    *,
    model: str = REQUIRED,
    principles: str = "arithmetic",
    mode: Literal["score", "compare"] = "score",
    verdicts: Sequence[str] = (),
    reference: bool = False,
    opponents: int = 8,
    dtype: Dtype = "float32",
    name: str = "",
    key_variable: str = "",
    seconds: float = 60.0,
    parallel: int = 8,
    cache: str = "runs/judge.sqlite",
    budget: int = 100_000,
) -> list[list[Score]]:
    """How good a language model finds a response by written principles, in [0, 1]; NaN where it gave no verdict.

    `model`: as for `policy.model`, or an address that speaks OpenAI's protocol (http://host:port/v1), at which `name`
    is the served model and the environment variable `key_variable` holds the key. `principles`: a text file, or a
    shipped one by name (arithmetic, chain_sums). `mode`: `score`, the probability of Yes against No for each response
    by itself, or `compare`, the mean probability of being preferred to others of the group, each pair in both orders;
    all pairs up to `opponents` + 1 responses, beyond that `opponents` neighbours on a ring. `verdicts`: two other words
    to choose between, the favourable one first. With `reference` the judge sees `problem.answer`. `dtype` is a local
    judge's. At an address, a request may take `seconds`, `parallel` of them are under way at a time, verdicts are kept
    in the file `cache` ('' for none), and after `budget` requests of a process the run stops; it can be resumed.
    The verdict is a value over 1/2: list a verifier first where there is one.
    Bai et al. 2022, arXiv:2212.08073; Lee et al. 2023, arXiv:2309.00267.
    """
    asker = JudgeSettings(
        model=model,
        principles=principles,
        mode=mode,
        verdicts=verdicts,
        reference=reference,
        opponents=opponents,
        dtype=dtype,
        name=name,
        key_variable=key_variable,
        seconds=seconds,
        parallel=parallel,
        cache=cache,
        budget=budget,
    ).prompter()
    values = asker.scores(problems, responses) if mode == "score" else asker.wins(problems, responses, opponents)
    return [[Score(value, value > 0.5, value > 0.5) for value in row] for row in values]
