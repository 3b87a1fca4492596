"""What a study ends with in the terminal: one screen, and the one thing to do next."""

import io
from pathlib import Path
from typing import Any

import pytest

from experiments.cli.conclude import conclude
from experiments.cli.main import main
from experiments.report.sentences import plain_sentence
from experiments.terminal import Console
from tests.experiments.report.studies import FINALS, judge, write_study

MANY = "more seeds, or further questions to the final models (compare.reevaluate): the same command with them"
ENOUGH = {"grpo": [0.5] * 12, "dapo": [0.531, 0.491] * 6}  # d = .031, -.009: mean .011, sd .02 √(12/11)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"margin": 0.02}, "more seeds: the same command with --seeds 10 and --grow uses all finished runs"),
        ({"margin": 0.01}, "--seeds 34 and --grow"),
        ({"margin": 0.005}, MANY),  # 128
        ({"margin": 0.02, "seeds": [2, 1, 0]}, MANY),  # `--seeds 10` would be other seeds, or in another order
        ({"margin": 0.02, "finals": ENOUGH}, MANY),  # 11 would do, and 12 there are: what is missing is luck
    ],
)
def test_an_inconclusive_study_names_the_seeds_that_would_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], declared: dict[str, Any], message: str
) -> None:
    """d = .04, .06, .02 has an sd of .02: a margin of it takes 10 seeds, half of it 34."""
    study = write_study(tmp_path / "pair", **declared)
    assert [c.verdict for c in judge(study).analysis.comparisons] == ["inconclusive"]
    assert main(["analyze", str(study.path)]) == 0
    assert message in " ".join(capsys.readouterr().out.split())


def test_of_several_comparisons_the_one_that_needs_most_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(tmp_path / "three", {**FINALS, "rloo": [0.46, 0.58, 0.55]}, margin=0.02)
    fixed = [c.fixed_n for c in judge(study).analysis.comparisons if c.verdict == "inconclusive"]
    needed = [each.seeds_for_margin for each in fixed if each is not None and each.seeds_for_margin is not None]
    assert len(needed) == 2
    assert min(needed) < max(needed)
    assert main(["analyze", str(study.path)]) == 0
    message = " ".join(capsys.readouterr().out.split())
    assert (f"--seeds {max(needed)} " in message) == (max(needed) <= 50)
    assert f"--seeds {min(needed)} " not in message


def test_a_margin_for_a_study_says_how_it_is_declared_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path / "pair")
    assert main(["analyze", str(study.path), "--margin", "0.05"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "which declares its own margin: leave the options out; its margin may be declared anew" in message
    assert 'with -b "compare.margin = 0.05" --grow' in message
    assert main(["analyze", str(study.path), "--alpha", "0.01"]) == 2
    assert "--grow" not in capsys.readouterr().err


SEVEN = {
    "grpo": [0.50, 0.52, 0.54, 0.51, 0.53],
    "dr_grpo": [0.531, 0.552, 0.570, 0.542, 0.560],
    "rloo": [0.50, 0.53, 0.53, 0.52, 0.53],
    "dapo_leave_one_out": [0.55, 0.58, 0.59, 0.56, 0.57],
    "gspo_token_level": [0.47, 0.48, 0.51, 0.48, 0.50],
    "reinforce_pp_baseline": [0.52, 0.53, 0.56, 0.52, 0.55],
    "cispo": [0.49, 0.53, 0.55, 0.50, 0.54],
}


def ends_with(folder: Path, *, verbose: bool = False) -> list[str]:
    """The lines that a study ends with on a terminal of 80 columns."""
    file = io.StringIO()
    assert conclude(folder, Console(file=file, width=80), verbose=verbose) == 0
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_study_of_seven_arms_fits_one_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where most verdicts have a warning: each arm samples twice the baseline's tokens."""
    monkeypatch.chdir(tmp_path)
    study = write_study(Path("runs/seven"), SEVEN, failures="worst")
    judgement = judge(study)
    lines = ends_with(study.path)
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 42
    text = " ".join(" ".join(lines).split())
    table, said = text.index("adj. p"), [plain_sentence(c, judgement) for c in judgement.analysis.comparisons]
    places = [text.index(sentence) for sentence in said]
    warnings = [text.index(f"warning: {warning}") for warning in judgement.warnings]
    assert len(warnings) == 5
    assert len(lines) - sum(-(-len(f"warning: {warning}") // 80) for warning in judgement.warnings) <= 32
    assert [table, *warnings, *places] == sorted([table, *warnings, *places])
    assert all(text.count(part) == 1 for part in (*said, *judgement.warnings))
    assert max(places) < text.index("next: ") < text.index("report: ")
    assert not any(note in text for note in judgement.analysis.notes)
    assert f"tests, p-values and {len(judgement.analysis.notes)} notes: grpolab analyze" in text


def test_the_rest_is_printed_on_demand(tmp_path: Path) -> None:
    study = write_study(tmp_path / "pair", margin=0.02)
    judgement = judge(study)
    short, long = (" ".join(" ".join(ends_with(study.path, verbose=each)).split()) for each in (False, True))
    rest = [*(c.sentence for c in judgement.analysis.comparisons), *(f"note: {n}" for n in judgement.analysis.notes)]
    rest.append(
        "effect sizes g_z (mean difference over the sd of the seeds' differences, corrected for few seeds): dapo vs"
    )
    assert len(rest) > 2
    assert "g_z" not in short
    assert all(each in long and each not in short for each in rest)


@pytest.mark.parametrize(
    ("finals", "declared", "message"),
    [
        ({"unfinished": [("dapo", 2, "running")]}, {}, "finish the runs: grpolab compare grpo dapo --seeds 3"),
        ({"unfinished": [("dapo", 2, "lost")]}, {}, "make up the runs that the machine ended: grpolab compare"),
        (
            {"finals": {"grpo": [0.5, 0.52], "dapo": [0.54, 0.58]}},
            {},
            "more seeds: the same command with --seeds 5 and --grow",
        ),
        ({"finals": {"grpo": [0.0] * 3, "dapo": [0.0] * 3}}, {}, "no response was right: read what the models wrote"),
        ({"finals": {"grpo": [0.5] * 3, "dapo": [0.5] * 3}}, {}, "find out why all seeds agree on dapo and grpo:"),
        ({"finals": {"grpo": [0.5] * 3, "dapo": [0.8, 0.81, 0.82]}}, {}, "see in the report what the verdicts rest on"),
        (
            {"finals": {"grpo": [0.5] * 3, "dapo": [0.8, 0.81, 0.82]}},
            {"margin_declared": False},
            "say which difference would matter to you (0.01 is the default): the same command with",
        ),
    ],
)
def test_one_thing_is_next(tmp_path: Path, finals: dict[str, Any], declared: dict[str, Any], message: str) -> None:
    study = write_study(tmp_path / "pair", **finals, **declared)
    lines = ends_with(study.path)
    assert sum(line.startswith("next: ") for line in lines) == 1
    assert f"next: {message}" in " ".join(" ".join(lines).split())


def test_seeds_that_are_still_to_come_are_a_warning(tmp_path: Path) -> None:
    study = write_study(
        tmp_path / "pair", {k: [*v, 0.5] for k, v in FINALS.items()}, unfinished=[("dapo", 3, "running")]
    )
    text = " ".join(" ".join(ends_with(study.path)).split())
    assert "warning: Interim: 3 of the 4 declared seeds are finished in every arm." in text
