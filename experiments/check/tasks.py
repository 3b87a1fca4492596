"""What holds of tasks: their problems, their splits and their verifier, as far as some problems of each split show."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from core import SETTINGS, GrpoLabError, Part
from core.environments.tasks.rows import messages_fault
from core.loop.scoring import GraderError, grade, start
from core.model.loading import read_config
from core.model.policy import tokenizer_of
from core.model.prompts import problem_tokens
from core.model.soundness import context_of
from core.parts.gin_text import bound, resolved, use
from core.parts.options import RewardOptions
from core.parts.problems import Problem, Score, Task
from core.parts.registry import as_part, config_text
from experiments.check.checks import Broken, Checks, Inapplicable
from experiments.check.problems import (
    SEED,
    Key,
    content_of,
    made_anew,
    place_of,
    problems_of,
    splits_of,
    task_of,
    text_of,
)

CHECKS = Checks("task")
MEND_FILE: Final = (
    'mend what it names and check again: a line of the file is an object such as {"question": "2+2=", "answer": "4"}, '
    "without a comma after it; columns of other names go into files.columns; the roles of messages are system, user "
    "and assistant, the last one the user's (docs/models.md, Questions from files)"
)
MEND_SETTING: Final = "bind what it names otherwise, with -b or in a file behind -c"
MOST_COMPARED: Final = 20_000
"""Problems of a split that are compared between splits."""
GRADED: Final = 10
"""Problems of a split without an end whose answers are graded: one is as good as another."""
MOST_GRADED: Final = 50
"""And of one that has an end, where every row may have a mistake of its own."""
FORMS: Final[Mapping[str, str]] = {
    "alone": "{}",
    "in \\boxed{...}": "\\boxed{{{}}}",
    "in <answer>": "<think> It is this. </think> <answer> {} </answer>",
    "as a program": "```python\n{}\n```",
}
"""How a response may give an answer."""


# --- problems -------------------------------------------------------------------------------------------------------


@CHECKS.must(
    "gives problems",
    remedy="return Problem(prompt, answer, index, data), with text or messages as its prompt, for `train` and every "
    "suite, and give the task `rewards`, `suites` and `patterns` (core.parts.problems.Task)",
)
def gives_problems(part: Part) -> None:
    """What the loop asks of a task."""
    try:
        task = task_of(part)
    except GrpoLabError as error:
        if part.module.startswith("core."):  # its code is ours: what is to be mended was handed to it
            raise Broken(str(error), MEND_FILE if part.name == "files" else MEND_SETTING) from error
        raise
    missing = [name for name in ("rewards", "suites", "patterns", "problem") if not hasattr(task, name)]
    if missing:
        raise Broken(f"{type(task).__name__} has no {missing[0]}")
    suites: object = task.suites
    if not suites or not isinstance(suites, tuple | list) or {"train", "tune"} & set(suites):
        raise Broken(f"suites = {suites!r}, which are no names of test splits")
    if not task.rewards:
        raise Broken("no reward judges its responses")
    for reward in task.rewards:
        as_part(reward, "reward", f"{part.name}.rewards")
    for name, pattern in task.patterns.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise Broken(f"the pattern '{name}' is no regular expression: {error}") from error
    for split in splits_of(task):
        for index in range(3):
            _check_problem(task.problem(split, SEED, index), split, index)


def _check_problem(problem: object, split: str, index: int) -> None:
    where = f"problem {index} of {split}"
    if not isinstance(problem, Problem):
        raise Broken(f"{where} is {problem!r:.60}, no Problem")
    if not isinstance(problem.prompt, str) and (fault := messages_fault(list(problem.prompt))):
        raise Broken(f"the prompt of {where} is neither text nor chat messages: {fault}")
    if not problem.prompt:
        raise Broken(f"the prompt of {where} is empty")
    if not isinstance(problem.answer, str):
        raise Broken(f"the answer of {where} is {problem.answer!r:.60}, no text")
    if problem.index != index:
        raise Broken(f"{where} says that its index is {problem.index}")


@CHECKS.must(
    "same problem every time",
    remedy="make a problem a function of split, seed and index alone, e.g. by random.Random(f'{split}/{seed}/{index}')",
)
def same_problem(part: Part) -> None:
    """All arms of a seed meet the same problems, in whatever order, and so does a run that is resumed."""
    task = task_of(part)
    asked = [(split, seed, i) for split in splits_of(task) for seed in (SEED, 1) for i in range(20)]
    first = {key: content_of(task.problem(*key)) for key in asked}
    for made, given in ((task, "asked a second time"), (made_anew(part), "in a task made anew")):
        for key in reversed(asked):
            if (again := content_of(made.problem(*key))) != first[key]:
                was, now = next((a, b) for a, b in zip(first[key], again, strict=True) if a != b)
                split, seed, index = key
                raise Broken(f"problem {index} of {split} under seed {seed}: {now!r:.60}, not {was!r:.60} ({given})")


@CHECKS.must(
    "splits apart",
    remedy="give every split questions of its own, e.g. by a hash of the question, or take them out of one file",
)
def splits_apart(part: Part) -> None:
    """What is asked in a test must not have been trained on."""
    task = task_of(part)
    seen: dict[str, tuple[str, Problem]] = {}
    for split in _every_split(task):
        for problem in problems_of(task, split, most=MOST_COMPARED):
            other, first = seen.setdefault(text_of(problem.prompt), (split, problem))
            if other != split:
                raise Broken(
                    f"{place_of(other, first)} and {place_of(split, problem)} ask the same: {problem.prompt!r:.80}"
                )


def _every_split(task: Task) -> tuple[str, ...]:
    try:
        task.problem("tune", SEED, 0)
    except Exception:  # whatever a user's task makes of a split that it does not have
        return splits_of(task)
    return (*splits_of(task), "tune")


@CHECKS.reports("questions to tune learning rates on")
def tunes(part: Part) -> None:
    """`grpolab tune` asks for the split `tune`."""
    task = task_of(part)
    task.problem("tune", SEED, 0)


@CHECKS.reports("sizes")
def sizes(part: Part) -> str:
    """How many questions each split has, or how many differ where it has no end."""
    task = task_of(part)
    if hasattr(task, "size"):
        return ", ".join(f"{split} {task.size(split)}" for split in _every_split(task))
    drawn = {split: [text_of(problem.prompt) for problem in problems_of(task, split)] for split in splits_of(task)}
    listed = ", ".join(f"{len(set(texts))} of {len(texts)} in {split}" for split, texts in drawn.items())
    return f"no end; questions that differ: {listed}"


# --- the verifier ----------------------------------------------------------------------------------------------------


def _rewards(task: Task) -> tuple[Part, ...]:
    """Those of the config in force, else the task's own."""
    selector = SETTINGS["train"].selector
    given = bound(selector).get("rewards")
    if given is None:
        return task.rewards
    use((selector, "rewards"))
    return tuple(as_part(reward, "reward", "train.rewards") for reward in resolved(given))


def _verdict(task: Task) -> Part:
    """The reward that gives the verdict; raises `Inapplicable` where that takes a model."""
    first = _rewards(task)[0]
    if RewardOptions.of(first).together:
        raise Inapplicable(f"the reward '{first.name}' judges by a model or many responses together")
    return first


def _gold(problem: Problem) -> Iterator[tuple[str, str]]:
    """Responses that give the right answer, by how they do."""
    if problem.answer:
        yield from ((form, text.format(problem.answer)) for form, text in FORMS.items())
    solution = problem.data.get("solution")
    if isinstance(solution, str) and solution:
        yield "as its worked solution", solution


def _scored(reward: Part, problem: Problem, response: str) -> Score:
    try:
        return grade(reward, problem, response)
    except GraderError as error:
        return Score(0.0, correct=False, cause=str(error).strip().splitlines()[-1])


class _Try(NamedTuple):
    """A response with the gold answer, and what the verdict's reward makes of it."""

    split: str
    problem: Problem
    form: str
    response: str
    score: Score


_GRADED: Final[dict[Key, list[_Try]]] = {}
"""Of the last task that was graded."""


def _graded(part: Part) -> list[_Try]:
    """For some problems of each split a response that is right, or else the first that was tried.

    Raises `Inapplicable` where none is right at all, which may be for want of the form that the reward asks for.
    """
    task, key = task_of(part), (part, config_text())
    if key not in _GRADED:
        _GRADED.clear()
        _GRADED[key] = list(_graded_anew(task))
    graded = _GRADED[key]
    if not graded:
        raise Inapplicable("cannot be built: problems have neither an answer nor a data['solution']")
    if not any(each.score.correct for each in graded):
        raise Inapplicable(
            f"cannot be built: '{_verdict(task).name}' takes the answer {graded[0].problem.answer!r:.40} for right "
            f"neither {', '.join(FORMS)} nor as a data['solution']{_cause(graded[0].score)}"
        )
    return graded


def _graded_anew(task: Task) -> Iterator[_Try]:
    reward, likely = _verdict(task), ""
    for split in splits_of(task):
        for problem in problems_of(task, split, GRADED, MOST_GRADED):
            tries = list[_Try]()
            for form, response in sorted(_gold(problem), key=lambda named: named[0] != likely):
                tries.append(_Try(split, problem, form, response, _scored(reward, problem, response)))
                if tries[-1].score.correct:
                    likely = form
                    break
            yield from tries[-1:] if tries and tries[-1].score.correct else tries[:1]


def _cause(score: Score) -> str:
    return f" ({score.cause})" if score.cause else ""


@CHECKS.must(
    "rewards can start",
    remedy="install or set what is missing, or give train.rewards others: a run would stop here too",
)
def rewards_start(part: Part) -> None:
    """As before a run, but for those that judge by a model, which would be read."""
    task = task_of(part)
    start([reward.resolved() for reward in _rewards(task) if not RewardOptions.of(reward).together], task)


@CHECKS.must(
    "gold answers are right",
    remedy="mend the answer, or the reward: what it cannot take for right teaches nothing, or the wrong thing",
)
def gold_is_right(part: Part) -> None:
    """A response that gives the answer of the problem itself is right."""
    graded = _graded(part)
    wrong = [each for each in graded if not each.score.correct]
    if wrong:
        where = place_of(wrong[0].split, wrong[0].problem)
        raise Broken(
            f"{len(wrong)} of {len(graded)} are taken for wrong, the first in {where}: "
            f"{wrong[0].problem.answer!r:.60}{_cause(wrong[0].score)}"
        )


@CHECKS.reports("a response with the gold answer")
def gold_scores(part: Part) -> str:
    """What each reward gives it, and how it was written."""
    task = task_of(part)
    try:
        right = next(each for each in _graded(part) if each.score.correct)
    except Inapplicable as reason:
        raise Broken(str(reason)) from reason  # to be read, and no failure
    plain = [reward for reward in _rewards(task) if not RewardOptions.of(reward).together]
    scores = ", ".join(f"{reward.name} {_scored(reward, right.problem, right.response).value:g}" for reward in plain)
    return f"{scores}; written {right.form}"


@CHECKS.reports("worked solutions")
def solutions(part: Part) -> str:
    """Those that are there to be imitated are right themselves."""
    task = task_of(part)
    reward = _verdict(task)
    there = [
        (split, p)
        for split in splits_of(task)
        for p in problems_of(task, split, GRADED, MOST_GRADED)
        if p.data.get("solution")
    ]
    if not there:
        raise Inapplicable("there are none")
    wrong = [(s, p) for s, p in there if not _scored(reward, p, str(p.data["solution"])).correct]
    if wrong:
        raise Broken(f"{len(wrong)} of {len(there)} are taken for wrong, the first in {place_of(*wrong[0])}")
    return f"all {len(there)} that were tried are right"


# --- lengths ---------------------------------------------------------------------------------------------------------


def _lengths(task: Task) -> tuple[list[tuple[int, str, Problem]], int]:
    """Prompts by their tokens, and how many the context has room for; raises `Inapplicable` without a model."""
    if "model" not in bound(SETTINGS["policy"].selector):
        raise Inapplicable("policy.model is not bound, with -b or in a file behind -c")
    settings, train = SETTINGS["policy"](), SETTINGS["train"]
    try:
        tokenizer, context = tokenizer_of(settings), context_of(read_config(settings.model))
    except GrpoLabError as error:
        raise Inapplicable(str(error)) from error
    chosen = bound(train.selector)
    if "max_tokens" in chosen:
        use((train.selector, "max_tokens"))
    most = context - int(resolved(chosen.get("max_tokens", train.defaults["max_tokens"])))
    rows, heard = [(split, problem) for split in splits_of(task) for problem in problems_of(task, split)], set[Any]()
    lengths, refused = list[tuple[int, str, Problem]](), list[tuple[Problem, str]]()
    for split, problem in rows:
        try:
            lengths.append((len(problem_tokens(tokenizer, problem, heard)), split, problem))
        except GrpoLabError as error:
            refused.append((problem, str(error)))
    if refused:
        problem, message = refused[0]
        every = message.removeprefix(f"{problem.place}: ")
        raise GrpoLabError(
            f"all {len(rows)}: {every}"
            if len(refused) == len(rows)
            else f"{len(refused)} of {len(rows)}, the first: {message}"
        )
    return lengths, most


@CHECKS.must(
    "prompts fit the model",
    remedy="take fewer tokens: shorter prompts, a lower train.max_tokens, or a model with a longer context",
)
def prompts_fit(part: Part) -> None:
    """Its template takes them, and its context has room for each and the longest response to it."""
    task = task_of(part)
    try:
        rows, most = _lengths(task)
    except GrpoLabError as error:
        raise Broken(
            str(error),
            "bind a chat template that takes them (policy.chat_template), or give prompts as text (of a file: "
            "files.template = 'plain')",
        ) from error
    over = [row for row in rows if not 1 <= row[0] <= most]
    if over:
        length, split, problem = max(over, key=lambda row: row[0])
        raise Broken(
            f"{len(over)} of {len(rows)} do not: {place_of(split, problem)} has {length} tokens, where "
            f"train.max_tokens leaves {most}"
        )


@CHECKS.reports("prompts")
def prompt_lengths(part: Part) -> str:
    """Their shortest and longest, in tokens where the model is known."""
    task = task_of(part)
    try:
        rows, most = _lengths(task)
    except GrpoLabError as error:
        raise Inapplicable(str(error)) from error
    except Inapplicable:
        lengths = [len(text_of(problem.prompt)) for split in splits_of(task) for problem in problems_of(task, split)]
        return f"{_range(lengths)} characters"
    return f"{_range([length for length, *_ in rows])} tokens, of {most} that fit"


def _range(lengths: Sequence[int]) -> str:
    least, most = min(lengths), max(lengths)
    return str(most) if least == most else f"{least} to {most}"
