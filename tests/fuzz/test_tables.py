"""3,000 tables, broken or rewritten: each gives the verdict of its numbers, or is one clear message."""

import csv
import io
import math
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any, Final

import pytest

from experiments.results.tables.tables import Question, judge_table, read_tables
from experiments.statistics import Judgement
from tests.fuzz.outcome import result_or_message
from tests.fuzz.text import CELLS, damage

CASES: Final = 1000
CHUNK: Final = 100
HEADER: Final = ("arm", "seed", "step", "metric", "value")

Row = dict[str, str]


def rows(draw: Random) -> list[Row]:
    """Two or three arms with as many seeds, and a few evaluations each."""
    arms, seeds, steps = draw.sample(["grpo", "rloo", "my arm, 2"], draw.choice((2, 3))), draw.randint(3, 6), (0, 5, 10)
    return [
        {"arm": a, "seed": str(s), "step": str(t), "metric": "accuracy", "value": f"{draw.uniform(0.2, 0.9):.4f}"}
        for a in arms
        for s in range(seeds)
        for t in steps
    ]


def text_of(table: list[Row], columns: tuple[str, ...] = HEADER, **style: Any) -> str:
    """As CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, **{"lineterminator": "\n", **style})
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def judged(file: Path, baseline: str) -> dict[tuple[str, str], tuple[float, int]]:
    """Mean difference and number of seeds, by pair."""
    judgement = judge_file(file, baseline)
    return {(c.arm, c.baseline): (c.effect.mean_difference, c.effect.n) for c in judgement.analysis.comparisons}


def by_hand(table: list[Row], baseline: str) -> dict[tuple[str, str], tuple[float, int]]:
    """The same from the definition: a run scores the mean of its last three evaluations, step 0 included."""
    runs: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for row in table:
        runs.setdefault(row["arm"], {}).setdefault(int(row["seed"]), []).append(
            (float(row["step"]), float(row["value"]))
        )
    final = {arm: {s: fmean(v for _, v in sorted(p)[-3:]) for s, p in of.items()} for arm, of in runs.items()}
    return {
        (arm, baseline): (fmean(scores[s] - final[baseline][s] for s in scores), len(scores))
        for arm, scores in final.items()
        if arm != baseline
    }


def judge_file(file: Path, baseline: str) -> Judgement:
    """As the command line has it."""
    return judge_table(read_tables([file]), Question(baseline=baseline))


def same(found: dict[tuple[str, str], tuple[float, int]], expected: dict[tuple[str, str], tuple[float, int]]) -> bool:
    """To rounding."""
    return found.keys() == expected.keys() and all(
        n == expected[pair][1] and math.isclose(d, expected[pair][0], abs_tol=1e-9) for pair, (d, n) in found.items()
    )


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_a_table_that_says_the_same_gives_the_same(first: int, tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    for n in range(first, first + CHUNK):
        draw = Random(f"rewritten table {n}")
        table = rows(draw)
        expected = by_hand(table, table[0]["arm"])
        baseline = table[0]["arm"]
        draw.shuffle(table)
        columns = (*draw.sample(HEADER, len(HEADER)), *draw.choice([(), ("comment",)]))
        style = {
            "delimiter": draw.choice([",", ";", "\t"]),
            "quoting": draw.choice([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
            "lineterminator": draw.choice(["\n", "\r\n"]),
        }
        for row in table:
            if draw.random() < 0.1:
                row["value"] = draw.choice([f"{float(row['value']):.6e}", f" {row['value']} ", f"+{row['value']}"])
        text = draw.choice(["", "\ufeff"]) + text_of(table, columns, **style) + draw.choice(["", "\n", "\n\n"])
        file.write_bytes(text.encode())
        assert same(judged(file, baseline), expected), f"table {n}:\n{text}"


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_a_cell_that_is_no_number_is_named_or_told_of(first: int, tmp_path: Path) -> None:
    """A number changes the verdict as it should; what is none is an error, or a run that is said to have failed."""
    file = tmp_path / "results.csv"
    for n in range(first, first + CHUNK):
        draw = Random(f"cell {n}")
        table = rows(draw)
        baseline, column, cell = table[0]["arm"], draw.choice(("seed", "step", "value")), draw.choice(CELLS)
        draw.choice(table)[column] = cell
        file.write_text(text_of(table))
        try:
            judgement, message = result_or_message(partial(judge_file, file, baseline))
            if judgement is None:
                assert "results.csv" in str(message), f"no place: {message}"
                continue
            found = {
                (c.arm, c.baseline): (c.effect.mean_difference, c.effect.n) for c in judgement.analysis.comparisons
            }
            told = any(word in note for note in judgement.analysis.notes for word in ("failed", "lacks", "unlike"))
            try:
                expected = by_hand(table, baseline)
            except (ValueError, KeyError):
                expected = {}
            # a run that another step or seed makes end early is no longer what it was
            assert same(found, expected) or told, f"{found} and not {expected}, and not told of"
        except BaseException as error:
            raise AssertionError(f"table {n}, {column} = {cell!r:.60}:\n{file.read_text():.3000}") from error


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_a_broken_table_is_verdicts_or_a_message(first: int, tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    for n in range(first, first + CHUNK):
        draw = Random(f"broken table {n}")
        table = rows(draw)
        file.write_bytes(damage(text_of(table), draw).encode("utf-8", "surrogatepass"))
        try:
            _, message = result_or_message(partial(judge_file, file, table[0]["arm"]))
            assert message is None or "results.csv" in message, f"no place: {message}"
        except BaseException as error:
            raise AssertionError(f"table {n}:\n{file.read_bytes()[:3000]!r}") from error
