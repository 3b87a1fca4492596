"""Figures as files: each whole by itself, with the arms named and nothing in it that few programs know."""

from pathlib import Path
from xml.etree import ElementTree

from experiments.cli.main import main
from tests.experiments.report.studies import write_study


def test_every_figure_is_a_file_of_its_own(tmp_path: Path) -> None:
    finals = {"grpo": [0.50, 0.52, 0.54], "a&b": [0.54, 0.58, 0.56], "rloo": [0.5, 0.55, 0.52]}
    study = write_study(tmp_path / "three", finals, family="all")
    assert main(["report", str(study.path)]) == 0
    files = {file.name: file.read_text("utf-8") for file in (study.path / "figures").glob("*.svg")}
    assert {
        "learning-curves-held-out-accuracy.svg",
        "learning-curves-by-sampled_tokens-held-out-accuracy.svg",
        "learning-curves-response-length-all.svg",
        "paired-differences-seed-by-seed.svg",
        "verdicts-row-against-column-all-pairs-of-arms.svg",
        "ranks.svg",
        "beyond-the-mean-interquartile-means.svg",
    } <= set(files)
    assert "learning-curves-by-sampled_tokens-response-length-all.svg" not in files, "of other budgets the main one"
    for text in files.values():
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in text
    curves = files["learning-curves-held-out-accuracy.svg"]
    assert [each.text for each in ElementTree.fromstring(curves).iter() if each.text in finals] == list(finals)
    assert ".mean.t1{stroke: #0072b2;" in curves
