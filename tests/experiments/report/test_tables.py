"""The tables beside the page: in a terminal, and as Markdown, LaTeX and CSV with the very rows of the page."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from experiments.cli.main import main
from experiments.report import render, verdict_table, write_tables
from experiments.report.arm_style import arm_styles
from experiments.report.differences import differences_figure
from experiments.report.formatting import unit
from experiments.report.grid import (
    Cell,
    Column,
    Grid,
    column,
    latex_text,
    number_cell,
    text_cell,
    to_csv,
    to_latex,
    to_markdown,
)
from experiments.report.tables import no_verdict
from experiments.results.stored_run import StudyError
from experiments.results.stored_study import StoredStudy
from experiments.statistics import Judgement
from tests.experiments.report.pages import Page
from tests.experiments.report.studies import EARLY, FINALS, LOOKS, judge, write_study

LONG = ("grpo_with_a_rather_long_name_and_eps_high_0.28", "dapo_without_dynamic_sampling_but_with_$5_and_$6<&>")
SMALL = Grid(
    (column("arm", "arm"), Column(("low", "high"), "interval"), column("p", "p", numeric=True)),
    (
        (text_cell("a_b"), Cell("−1 to 1", (-1.0, 1.0)), number_cell(0.5, "0.50")),
        (text_cell("c|d"), Cell("–", (None, None)), number_cell(None, "–")),
    ),
)


def terminal(study: StoredStudy, judgement: Judgement | None) -> str:
    """The terminal's table as text, 80 columns wide."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(verdict_table(judgement, study))
    return console.export_text()


@pytest.mark.parametrize("names", [("grpo", "dapo"), LONG])
def test_the_terminal_table_fits_80_columns(tmp_path: Path, names: tuple[str, str]) -> None:
    study = write_study(tmp_path / "pair", dict(zip(names, FINALS.values(), strict=True)))
    text = terminal(study, judge(study))
    assert max(map(len, text.splitlines())) <= 80
    assert "inconclusive" in text
    assert "+4.0 [−0.97," in text.replace("\n", " ")
    assert "0.0742" in text
    assert "paired t, Holm" in text


def test_the_terminal_table_works_without_a_judgement(tmp_path: Path) -> None:
    study = write_study(tmp_path / "pair", {"grpo": [0.5, 0.6]})
    assert re.search(r"grpo +2 +55\.0 +6\.00 k", terminal(study, None))


def test_one_grid_has_three_forms() -> None:
    assert to_markdown(SMALL) == (
        "| arm | interval | p |\n| --- | --- | ---: |\n| a_b | −1 to 1 | 0.50 |\n| c\\|d | – | – |\n"
    )
    assert to_latex(SMALL).splitlines() == [
        r"\begin{tabular}{llr}",
        r"  \toprule",
        r"  arm & interval & p \\",
        r"  \midrule",
        r"  a\_b & $-$1 to 1 & 0.50 \\",
        r"  c\textbar{}d & -- & -- \\",
        r"  \bottomrule",
        r"\end{tabular}",
    ]
    assert to_csv(SMALL) == "arm,low,high,p\na_b,-1.0,1.0,0.5\nc|d,,,\n"
    assert to_csv(SMALL, ("arm", "p")) == "arm,p\na_b,0.5\nc|d,\n"


def test_latex_escapes_what_it_would_obey() -> None:
    assert latex_text("5 % of $x_1$ & {#}~^\\") == (
        r"5 \% of \$x\_1\$ \& \{\#\}\textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert latex_text("±Δ ≈ ∞ < 3 ≥ 2") == r"$\pm$$\Delta$ $\approx$ $\infty$ $<$ 3 $\ge$ 2"
    assert latex_text("--seeds 12 --grow") == "-{}-seeds 12 -{}-grow", "no dashes"
    assert latex_text("---") == "-{}-{}-"
    assert [latex_text(words) for words in ("[a]", "*b", "c[0]*")] == ["{}[a]", "{}*b", "c[0]*"], "no options of \\\\"


def test_files_hold_the_rows_of_the_page(tmp_path: Path) -> None:
    """At three finished seeds of dapo and one failed at its declared score, which is 0 because its start is higher."""
    finals = {"grpo": [0.5, 0.52, 0.54, 0.5], "dapo": [0.54, 0.58, 0.56, 0.5]}
    study = write_study(tmp_path / "pair", finals, unfinished=[("dapo", 3, "failed")], failures="worst")
    judgement = judge(study)
    paths = write_tables(study, judgement, tmp_path / "tables")
    assert [path.name for path in paths] == [
        *("verdicts.md", "verdicts.tex", "verdicts.csv", "outcomes.md", "outcomes.tex", "outcomes.csv", "scores.csv")
    ]
    page = Page(render(study, judgement))
    markdown, tex = (path.read_text("utf-8") for path in paths[:2])
    head, row = page.table("Verdicts")
    (line_of_dapo,) = [line for line in markdown.splitlines() if line.startswith("| dapo")]
    assert [cell.strip() for cell in line_of_dapo.strip("|").split("|")][:5] == row[:5]
    assert all(title.split(" strip")[0].split(" difference / sd")[0] in markdown for title in head)  # without the notes
    assert all(f"- {note}" in markdown for note in judgement.analysis.notes)
    assert judgement.analysis.notes
    assert r"95~\% interval" in tex
    (record,) = csv.DictReader(paths[2].read_text().splitlines())
    (each,) = judgement.analysis.comparisons
    assert float(record["difference"]) == each.effect.mean_difference
    assert each.effect.interval == (float(record["interval_low"]), float(record["interval_high"]))
    assert (record["verdict"], record["rests_on"], record["seeds"]) == (each.verdict, "model-based", "4")
    scores = list(csv.DictReader(paths[-1].read_text().splitlines()))
    assert list(scores[0]) == ["arm", "seed", "score", "status", "imputed", "course", "answers"]
    assert len(scores) == len(page.table("Every run")) - 1 == 8
    failed = {"arm": "dapo", "seed": "3", "score": "0.0", "status": "failed", "imputed": "true", "course": ""}
    assert scores[-1] == failed | {"answers": ""}
    assert float(scores[5]["score"]) == pytest.approx(0.58)
    assert page.table("Every run")[-1][:5] == ["dapo", "3", "0.0 %", "failed the loss was nan", "yes"]


@given(st.text(st.characters(codec="utf-8")))
def test_latex_obeys_nothing_in_a_text(words: str) -> None:
    """What is left of a text once all that LaTeX prints for its marks is taken out holds no mark of its own."""
    printed = latex_text(words)
    for mark in ("textbackslash", "textasciitilde", "textasciicircum", "textbar"):
        printed = printed.replace(f"\\{mark}{{}}", "")
    printed = re.sub(r"\$(\\[a-z]+ ?|[<>-]|\^2)\$|\\[&%$#_{}]|\{\}|\\,|~", "", printed)
    assert not set(printed) & set("\\&%$#_{}~^<>|")


def test_a_latex_table_takes_its_caveats_along(tmp_path: Path) -> None:
    """Better at equal steps, worse at equal tokens: the note is printed with the table, not left in a comment."""
    study = write_study(tmp_path / "clear", {"grpo": [0.50, 0.52, 0.54], "dapo": [0.54, 0.561, 0.58]})
    judgement = judge(study)
    assert [each.verdict for each in judgement.analysis.comparisons] == ["better"]
    write_tables(study, judgement, tmp_path / "tables")
    for name in ("verdicts", "outcomes"):
        tex = (tmp_path / "tables" / f"{name}.tex").read_text("utf-8")
        printed = "\n".join(line for line in tex.splitlines() if not line.startswith("%"))
        order = (r"\end{tabular}", r"\begin{tablenotes}", r"\item \textit{Note.}", r"\end{threeparttable}")
        assert sorted(order, key=printed.index) == list(order)
        assert printed.count("{") == printed.count("}")
        if name == "verdicts":
            assert "dapo vs grpo is better (+0.0403) at equal steps, worse" in printed
            assert r"run's score: mean of steps 2, 4, 6" in printed
            notes = [f"  \\item {latex_text(note)}" for note in judgement.analysis.notes]
            assert notes
            assert set(notes) <= {line.removesuffix(".") for line in printed.splitlines()} | set(printed.splitlines())


def test_a_comparison_settled_at_an_early_look_is_shown_as_it_was_then(tmp_path: Path) -> None:
    """dapo at its first three of six seeds; rloo at all six, where grpo's mean is .525 and not .54."""
    study = write_study(tmp_path / "looks", EARLY, **LOOKS)
    judgement = judge(study)
    dapo, rloo = judgement.analysis.comparisons
    assert (dapo.effect.n, dapo.verdict, rloo.effect.n, rloo.verdict) == (3, "better", 6, "inconclusive")
    text = render(study, judgement)
    head, *rows = Page(text).table("Verdicts")
    assert head[5].startswith("98 or 97\u00a0% interval")
    assert rows[0][2:6] == ["3", "74.0 % vs 54.0 %", "+20.0", " +16.0 to +24.0, 98\u00a0%"]
    assert rows[1][2:5] == ["6", "52.5 % vs 52.5 %", "0.0"]
    assert rows[1][5].endswith(", 97\u00a0%")
    assert "between +16.0 and +24.0 (98\u00a0%)" in text, "the headline"
    write_tables(study, judgement, tmp_path / "tables")
    first, second = csv.DictReader((tmp_path / "tables" / "verdicts.csv").read_text().splitlines())
    assert [float(first[key]) for key in ("mean", "baseline_mean", "interval_level")] == pytest.approx(
        [0.74, 0.54, 0.98]
    )
    assert float(second["interval_level"]) == pytest.approx(0.97)
    shown = terminal(study, judgement)
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(r"dapo +3 +74\.0 +\+20\.0", shown)
    assert re.search(r"rloo +6 +52\.5 +0\.0", shown)
    assert "98 or 97 %" in shown
    drawing = differences_figure(judgement, arm_styles(list(study.arms), study.baseline), measure=unit("test/accuracy"))
    assert re.findall(r"<title>seed (\d): \+(?:20|21|19)<", drawing) == ["3", "5", "4"]
    assert [drawing.count(f"<title>seed {seed}:") for seed in range(6)] == [1, 1, 1, 2, 2, 2]


def test_an_arm_that_left_a_race_is_compared_at_the_seeds_it_ran(tmp_path: Path) -> None:
    """dapo leaves after some of ten seeds; what it is compared with is the baseline at those, not at all ten."""
    base = [0.4 + 0.01 * seed for seed in range(10)]
    finals = {
        "grpo": base,
        "dapo": [x + 0.3 + 0.01 * (seed % 3 - 1) for seed, x in enumerate(base)],
        "rloo": [x + 0.01 * (-1) ** seed for seed, x in enumerate(base)],
    }
    study = write_study(tmp_path / "race", finals, race=True, failures="worst")
    judgement = judge(study)
    each = judgement.analysis.comparisons[0]
    assert each.effect.n < judgement.analysis.comparisons[1].effect.n == 10
    mean = sum(base[: each.effect.n]) / each.effect.n
    _, row, _ = Page(render(study, judgement)).table("Verdicts")
    assert row[2:5] == [
        str(each.effect.n),
        f"{100 * (mean + each.effect.mean_difference):.1f} % vs {100 * mean:.1f} %",
        f"+{100 * each.effect.mean_difference:.1f}",
    ]


def test_the_same_study_gives_the_same_files(tmp_path: Path) -> None:
    study = write_study(tmp_path / "pair")
    first, second = (write_tables(study, judge(study), tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_without_a_judgement_there_are_the_scores_alone(tmp_path: Path) -> None:
    study = write_study(tmp_path / "one", {"grpo": [0.5, 0.6]})
    (path,) = write_tables(study, None, tmp_path / "tables")
    assert path.read_text().splitlines()[1:] == [
        "grpo,0,0.5,finished,false,steady,",
        "grpo,1,0.6,finished,false,steady,",
    ]


def test_without_a_verdict_the_reader_learns_what_is_missing(tmp_path: Path) -> None:
    half = write_study(tmp_path / "half", {"grpo": [0.5, 0.6], "dapo": []})
    message = (
        "Nothing to compare yet: that takes a finished run of grpo and of another arm at the same seed. Finished: "
        "grpo 2 of 2, dapo 0 of 2. To go on: grpolab compare grpo dapo --seeds 3"
    )
    assert half.judge() is None
    assert no_verdict(half) == message
    assert message in render(half, None)
    looks = write_study(tmp_path / "looks", {arm: row[:4] for arm, row in EARLY.items()}, **LOOKS)
    assert looks.judge() is None
    assert "that takes the first 3 seeds in every arm. Finished: grpo 4 of 6," in no_verdict(looks)
    assert (
        no_verdict(write_study(tmp_path / "one", {"grpo": [0.5]})) == "The study has one arm, so nothing is compared."
    )


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_command_on_an_unfinished_study_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: list[str]
) -> None:
    write_study(tmp_path / "half", {"grpo": [0.5, 0.6], "dapo": []})
    assert main(["analyze", str(tmp_path / "half"), *as_json]) == 0
    out, err = capsys.readouterr()
    assert "Finished: grpo 2 of 2, dapo 0 of 2." in " ".join((err if as_json else out).split())
    assert not as_json or json.loads(out) == {}


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    study = write_study(tmp_path / "pair")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StudyError, match=r"cannot write .*verdicts\.md"):
        write_tables(study, judge(study), tmp_path / "file")
