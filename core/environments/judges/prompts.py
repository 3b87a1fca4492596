"""What a judge is asked, and what its answers come to.

    score     the probability of Yes where the alternative is No                       of one response
    compare   p_ij = (P(A | i shown as A, j as B) + P(B | j shown as A, i as B)) / 2   of a pair, in both orders
              the mean of p_ij over a response's opponents j                           of one response

A judge that prefers a place to a response, however strongly, gives p_ij = 1/2 (Wang et al. 2023, arXiv:2305.17926).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from core.errors import GrpoLabError, near
from core.model.loading import ASSETS
from core.parts.problems import Problem

SHIPPED: Final = ASSETS / "principles"
VERDICTS: Final = {"score": ("Yes", "No"), "compare": ("A", "B")}
"""Modes, and the two words between which a judge chooses in each."""


class Judge(Protocol):
    """Whoever can be asked."""

    def prefer(self, questions: Sequence[str], words: Sequence[str]) -> list[float]:
        """P(first) / (P(first) + P(second)) of two `words` after each question; NaN where there is no verdict."""
        ...


@dataclass(frozen=True)
class JudgePrompter:
    """Puts problems and responses to a judge."""

    judge: Judge
    principles: str
    verdicts: tuple[str, str]
    reference: bool

    def scores(self, problems: Sequence[Problem], responses: Sequence[Sequence[str]]) -> list[list[float]]:
        """The probability of a favourable verdict, P lists of G."""
        yes, no = self.verdicts
        ask = f"Is this response good by the principles? Answer with {yes} or {no}."
        questions = [
            [self._question(problem, [("Response", text)], ask) for text in texts]
            for problem, texts in zip(problems, responses, strict=True)
        ]
        preferences = self._ask([question for row in questions for question in row])
        return [[preferences[question] for question in row] for row in questions]

    def comparisons(
        self, problems: Sequence[Problem], responses: Sequence[Sequence[str]], opponents: int
    ) -> list[list[tuple[int, int, float, float]]]:
        """For each problem its pairs (i, j, P(A | i first), P(A | j first)); equal responses are not asked about."""
        first, second = self.verdicts
        ask = f"Which response is better by the principles? Answer with {first} or {second}."
        games: list[list[tuple[int, int, str, str]]] = []
        for problem, texts in zip(problems, responses, strict=True):

            def shown(a: str, b: str, problem: Problem = problem) -> str:
                return self._question(problem, [(f"Response {first}", a), (f"Response {second}", b)], ask)

            games.append(
                [
                    (i, j, shown(texts[i], texts[j]), shown(texts[j], texts[i]))
                    for i, j in pairs(len(texts), opponents)
                    if texts[i] != texts[j]
                ]
            )
        preferences = self._ask([question for row in games for game in row for question in game[2:]])
        return [[(i, j, preferences[a], preferences[b]) for i, j, a, b in row] for row in games]

    def wins(
        self, problems: Sequence[Problem], responses: Sequence[Sequence[str]], opponents: int
    ) -> list[list[float]]:
        """The mean probability of winning against a response's opponents, P lists of G; NaN where no pair was judged.

        Raises `GrpoLabError` for a group of one.
        """
        if any(len(texts) < 2 for texts in responses):
            raise GrpoLabError(
                "judge.mode = 'compare' compares the responses of a group, and there is one response only: raise "
                "train.group_size, or bind judge.mode = 'score'; a greedy evaluation needs another reward as the first"
            )
        return [
            win_rates(games, texts, opponents)
            for games, texts in zip(self.comparisons(problems, responses, opponents), responses, strict=True)
        ]

    def _question(self, problem: Problem, shown: Sequence[tuple[str, str]], ask: str) -> str:
        question = problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1]["content"]
        known = [("Right answer", problem.answer)] if self.reference else []
        parts = [f"{title}:\n{text}" for title, text in [("Question", question), *known, *shown]]
        return "\n\n".join([self.principles, *parts, ask])

    def _ask(self, questions: Sequence[str]) -> dict[str, float]:
        """Every different question once."""
        different = list(dict.fromkeys(questions))
        return dict(zip(different, self.judge.prefer(different, self.verdicts), strict=True))


def pairs(samples: int, opponents: int) -> list[tuple[int, int]]:
    """Who meets whom: all pairs (i, j) where each of G has at most `opponents` others, else neighbours on a ring.

    On the ring each meets opponents // 2 to either side: G * (opponents // 2) pairs instead of G (G - 1) / 2.
    """
    if samples - 1 <= opponents:
        return [(i, j) for i in range(samples) for j in range(i + 1, samples)]
    return [(i, (i + k) % samples) for i in range(samples) for k in range(1, opponents // 2 + 1)]


def win_rates(games: Sequence[tuple[int, int, float, float]], texts: Sequence[str], opponents: int) -> list[float]:
    """Mean win probabilities [G] of one group; a pair of which one order was not judged does not count."""
    judged = {(i, j): (a + 1 - b) / 2 for i, j, a, b in games}
    results: list[list[float]] = [[] for _ in texts]
    for i, j in pairs(len(texts), opponents):
        p = 0.5 if texts[i] == texts[j] else judged[i, j]
        if not math.isnan(p):
            results[i].append(p)
            results[j].append(1 - p)
    return [sum(row) / len(row) if row else math.nan for row in results]


def read_principles(name: str) -> str:
    """The text of a file, or of the shipped one of that name; raises `GrpoLabError` when there is none."""
    path = Path(name).expanduser()
    if not path.is_file():
        path = SHIPPED / f"{name}.txt"
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        shipped = [file.stem for file in SHIPPED.glob("*.txt")]
        raise GrpoLabError(
            f"judge.principles = {name!r}: no text file, and none that is shipped ({near(name, shipped)}): {error}"
        ) from error
    if not text:
        raise GrpoLabError(f"judge.principles = {name!r}: the file is empty; write down what a good response is")
    return text


def digest(principles: str) -> str:
    """Which principles these are."""
    return hashlib.blake2b(principles.encode(), digest_size=6).hexdigest()
