"""Lookups: ways through tables, that no prompt gives away; splits without a table in common; the verdict."""

import random
import re
from collections import Counter

import pytest

from core import GrpoLabError
from core.environments.episodes.lookup_table import ERROR, lookup_table
from core.environments.tasks.lookups import (
    ALPHABET,
    END,
    KEYS,
    TABLE_KEYS,
    follow,
    last_key,
    lookups,
    make_table,
)
from core.environments.tasks.splits import SPLITS as TENTHS
from core.environments.tasks.splits import tenth
from core.parts.problems import Problem, Score
from experiments.bases.lookups_mixture import AT_ONCE, guess_or_ask, play

SPLITS = ("train", "tune", "test", "test_long")


def parts(problem: Problem) -> tuple[int, str, int]:
    """Table, start and hops, read off the prompt."""
    match = re.fullmatch(r"(\d{4}):([a-p])\+(\d)=", str(problem.prompt))
    assert match is not None
    return int(match[1]), match[2], int(match[3])


def test_by_hand() -> None:
    table = {"k": "m", "m": "x", "x": "k"}
    assert [follow(table, "k", hops) for hops in range(4)] == ["k", "m", "x", "k"]


def test_prompts_say_what_is_asked_and_an_environment_answers_it() -> None:
    made = lookups()
    for split in SPLITS:
        for index in range(100):
            problem = made.problem(split, 1, index)
            number, start, hops = parts(problem)
            assert problem.data == {"table": make_table(number), "start": start, "hops": hops}
            episode, key = lookup_table(), start
            episode.reset(problem, 0)
            for _ in range(hops):
                step = episode.step(f"?{key}")
                assert step.call
                key = step.observation[0]
            assert key == problem.answer
            assert last_key(problem, f">{key}").correct
            assert set(f"{problem.prompt}?>{ERROR}{step.observation}") <= set(ALPHABET)
            assert END not in ALPHABET


def test_tables_are_circles_so_no_letter_comes_twice() -> None:
    for number in range(200):
        table = make_table(number)
        assert len(table) == TABLE_KEYS
        start = next(iter(table))
        way = [follow(table, start, hops) for hops in range(TABLE_KEYS)]
        assert set(way) == set(table) == set(table.values()) <= set(KEYS)
        assert follow(table, start, TABLE_KEYS) == start
    assert make_table(7) == make_table(7) != make_table(8)


def test_no_answer_is_a_better_guess_than_another() -> None:
    problems = [lookups().problem("train", 0, index) for index in range(4000)]
    counts = Counter((ord(p.answer) - ord(p.data["start"])) % len(KEYS) for p in problems)
    assert 0 not in counts  # never the start itself
    assert len(counts) == 15
    assert max(counts.values()) / 4000 < 1 / 15 + 0.016  # 4 standard errors


def test_problems_are_pure_and_splits_share_no_table() -> None:
    made, tables, hops = lookups(), {}, {}
    for split in SPLITS:
        one, other = [[lookups().problem(split, 3, i) for i in range(20)] for _ in range(2)]
        assert one == other
        assert one != [lookups().problem(split, 4, i) for i in range(20)]
        asked = [parts(made.problem(split, seed, i)) for seed in range(2) for i in range(300)]
        tables[split] = {number for number, _, _ in asked}
        hops[split] = {count for _, _, count in asked}
    for split, tenths in TENTHS.items():
        assert {tenth(f"lookups {number}") for number in tables[split]} == set(tenths)
    assert not tables["train"] & (tables["tune"] | tables["test"] | tables["test_long"])
    assert not tables["tune"] & (tables["test"] | tables["test_long"])
    assert hops == {"train": {1, 2, 3}, "tune": {1, 2, 3}, "test": {1, 2, 3}, "test_long": {4, 5}}


def test_bad_sizes_and_splits_are_named() -> None:
    with pytest.raises(GrpoLabError, match="lookups has no split 'dev'; it has: train, tune, test, test_long"):
        lookups().problem("dev", 0, 0)
    with pytest.raises(GrpoLabError, match=r"lookups\.min_hops = 3 is more than lookups\.max_hops = 2"):
        lookups(min_hops=3, max_hops=2)
    with pytest.raises(GrpoLabError, match=r"lookups\.max_hops = 8: must be a whole number from 1 to 7"):
        lookups(max_hops=8)
    assert parts(lookups(min_hops=7, max_hops=7).problem("test_long", 0, 0))[2] in (8, 9)


def test_the_verdict() -> None:
    problem = Problem("4821:k+2=", "m", 0)
    right, wrong = Score(1.0, correct=True, lenient=True), Score(0.0, correct=False)
    assert last_key(problem, ">m") == last_key(problem, ">m.") == last_key(problem, "k>m") == right
    assert last_key(problem, ">k") == wrong
    assert last_key(problem, "m") == Score(0.0, correct=False, lenient=True, cause="no final answer")
    for response in ("?m", "?m>", ">mm", ">km", ">M", ">m>", ">", "", "m>k;"):
        assert not last_key(problem, response).correct, response
    assert not last_key(problem, "?m").lenient


def test_a_task_is_played_with_its_environment() -> None:
    assert lookups().environment == lookup_table


def test_players_who_make_no_mistakes_are_right_and_the_mixture_is_what_it_says() -> None:
    made, rng = lookups(max_hops=5), random.Random(0)
    for index in range(200):
        problem = made.problem("train", 0, index)
        written = list(play(problem, rng, stray=0, early=0, late=0))
        assert len(written) == 2 * problem.data["hops"] + 1
        assert last_key(problem, written[-1]).correct
    problems = [made.problem("train", 0, index) for index in range(4000)]
    played = [guess_or_ask(problem, rng) for problem in problems]
    right: dict[bool, list[bool]] = {True: [], False: []}
    for problem, written in zip(problems, played, strict=True):
        right[len(written) == 1].append(last_key(problem, written[-1]).correct)
        episode = lookup_table()
        episode.reset(problem, 0)
        steps = [episode.step(text.removesuffix(END)) for text in written[::2]]
        assert [step.observation for step in steps[:-1]] == written[1::2]
        assert [step.done for step in steps] == [False] * (len(steps) - 1) + [True]
    assert abs(len(right[True]) / 4000 - AT_ONCE) < 0.025
    assert abs(sum(right[True]) / len(right[True]) - 1 / 16) < 0.02  # of all keys, the start too
    assert 0.5 < sum(right[False]) / len(right[False]) < 0.65


@pytest.mark.parametrize(("mistake", "at_least"), [({"stray": 1.0}, 0.5), ({"early": 1.0}, 0.6), ({"late": 1.0}, 1.0)])
def test_each_mistake_makes_answers_wrong(mistake: dict[str, float], at_least: float) -> None:
    """Stray calls may hit, and one hop cannot be cut short; a hop too many is always wrong."""
    made, rng = lookups(), random.Random(0)
    problems = [made.problem("train", 0, index) for index in range(300)]
    chances = {"stray": 0.0, "early": 0.0, "late": 0.0, **mistake}
    wrong = [not last_key(problem, list(play(problem, rng, **chances))[-1]).correct for problem in problems]
    assert sum(wrong) / len(wrong) >= at_least
