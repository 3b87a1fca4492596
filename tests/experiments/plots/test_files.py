"""A study's figures as files: every format, the width that was asked for, nothing cut, and the same bytes twice."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from experiments.cli.main import main
from experiments.plots.files import write_plots
from experiments.results.stored_study import StoredStudy
from tests.experiments.report.studies import judge, write_study

FINALS = {
    "grpo": [0.50, 0.52, 0.54, 0.51, 0.55],
    "dapo_with_a_rather_long_name_and_no_end_of_it_eps_high=0.28": [0.54, 0.58, 0.56, 0.57, 0.61],
    "$a$ very long name in words, with a comma, and more besides": [0.53, 0.52, 0.51, 0.54, 0.50],
}
ALWAYS = {"differences", "scores", "seeds", "ranks", "interquartile-means", "profile", "curves-test-accuracy"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    """A study whose figures have been written by the command, in every format at the width of a column."""
    folder = tmp_path_factory.mktemp("figures") / "three"
    written = write_study(folder, FINALS, family="all", seconds=False)
    assert main(["report", str(folder), "--figures"]) == 0
    return written


def test_every_figure_in_every_format_at_the_width_of_a_column(study: StoredStudy) -> None:
    folder = study.path / "figures" / "paper"
    names = {kind: {file.stem for file in folder.glob(f"*.{kind}")} for kind in ("svg", "pdf", "png")}
    assert names["svg"] == names["pdf"] == names["png"] >= ALWAYS
    assert {"curves-entropy", "curves-no_spread", "curves-test-accuracy-by-sampled_tokens"} < names["svg"]
    assert "curves-test-length_incorrect" not in names["svg"], "never measured"
    for name in names["svg"]:
        assert imread(folder / f"{name}.png").shape[1] == 3.3 * 300
        assert 'width="237.6pt"' in (folder / f"{name}.svg").read_text("utf-8")
        assert re.search(rb"/MediaBox \[ ?0 0 237\.6 ", (folder / f"{name}.pdf").read_bytes())
    assert (study.path / "figures" / "ranks.svg").is_file(), "the page's drawings are there as well"


def test_nothing_is_cut_however_long_the_names(study: StoredStudy) -> None:
    for file in (study.path / "figures" / "paper").glob("*.png"):
        pixels = imread(file)[..., :3]
        for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
            assert np.all(edge == 1), file.name


def test_the_same_study_gives_the_same_bytes_in_the_formats_asked_for(study: StoredStudy, tmp_path: Path) -> None:
    again = write_plots(study, judge(study), tmp_path / "again", ("svg", "pdf", "svg"))
    assert len(again) == len(set(again))
    assert {file.suffix for file in again} == {".svg", ".pdf"}
    for file in again:
        assert file.read_bytes() == (study.path / "figures" / "paper" / file.name).read_bytes(), file.name


def test_without_a_comparison_there_are_the_curves(tmp_path: Path) -> None:
    study = write_study(tmp_path / "alone", {"grpo": [0.50, 0.52, 0.54]}, seconds=False, entropy=False)
    names = {file.stem for file in write_plots(study, None, tmp_path / "figures", ["svg"])}
    assert "curves-test-accuracy" in names
    assert all(name.startswith("curves-") for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--figures", "jpg"], "grpolab: --figures jpg: the formats are svg, pdf and png, each a word of its own"),
        (["--figures", "svg,pdf"], "grpolab: --figures svg,pdf: the formats are svg, pdf and png"),
        (["--width", "0.1"], "grpolab: --width = 0.1"),
        (["--width", "wide"], "grpolab: --width = 'wide'"),
    ],
)
def test_mistakes_are_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["report", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_after_the_formats_is_told_where_it_belongs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--figures", "pdf", str(tmp_path)]) == 2
    assert "the study's folder comes before --figures" in capsys.readouterr().err
