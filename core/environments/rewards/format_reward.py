"""Rewards for the format of a response, whatever its content."""

import re
from collections.abc import Sequence

from core.errors import GrpoLabError
from core.parts.contracts import reward
from core.parts.problems import Problem, Score


@reward
def think_answer(problem: Problem, response: str, *, tags: Sequence[str] = ("think", "answer")) -> Score:  # noqa: ARG001
    """1 if the response is `<think>...</think><answer>...</answer>` and nothing else but blanks, else 0.

    `tags`: the blocks demanded, each exactly once and in this order; a prompt that opens the first block itself does
    not suit. The same value is the verdict, so list the reward of the answer before this one in `train.rewards`.
    """
    if not tags or len(set(tags)) < len(tags) or not all(re.fullmatch(r"[A-Za-z][\w-]*", tag) for tag in tags):
        raise GrpoLabError(f"think_answer.tags = {tags!r}: must be different names like 'think', without brackets")
    # every piece between the marks, whose order is then known; blocks cannot nest if each mark occurs once
    marks = "|".join(rf"</?{re.escape(tag)}>" for tag in tags)
    pieces = re.split(f"({marks})", response)
    expected = [mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")]
    outside = "".join(pieces[::4])
    well_formed = pieces[1::2] == expected and not outside.strip()
    return Score(float(well_formed), well_formed, well_formed, None if well_formed else "wrong format")
