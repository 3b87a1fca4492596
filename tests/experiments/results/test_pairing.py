"""Questions that scores can only ask are answered by the hashes of a study's runs."""

import json
from pathlib import Path

import pytest

from experiments.results.stored_study import load_study
from tests.experiments.report.studies import judge, write_study

OPPOSITE = {"grpo": [0.50, 0.52, 0.54], "dapo": [0.58, 0.56, 0.50]}  # correlation -.96
SHIFTED = {"grpo": [0.50, 0.52, 0.54], "dapo": [0.51, 0.53, 0.55]}
EQUAL = {"grpo": [0.50, 0.52, 0.54], "dapo": [0.50, 0.52, 0.54]}


@pytest.mark.parametrize(
    ("finals", "hashes", "message"),
    [
        (
            OPPOSITE,
            {},
            "nothing; yet they do share prompts, initial weights, first rollouts seed by seed, by their hashes.",
        ),
        (
            OPPOSITE,
            {"prompts": ""},
            "nothing; check that both arms draw prompts and sampling noise from the shared seed.",
        ),
        (SHIFTED, {}, "on every seed: the seed is applied, for prompts differ from seed to seed"),
        (SHIFTED, {"prompts": "same"}, "on every seed: the seed is not applied, for all seeds had the same prompts"),
        (SHIFTED, {"prompts": ""}, "on every seed: is the seed really applied?"),
        (EQUAL, {"final_weights": "same"}, "the two arms do the same, for their trained weights are the same"),
        (EQUAL, {"final_weights": "ARM"}, "the two arms differ in their trained weights"),
        (EQUAL, {}, "do the two arms really differ?"),
    ],
)
def test_a_question_is_asked_only_where_nobody_knows(
    tmp_path: Path, finals: dict[str, list[float]], hashes: dict[str, str], message: str
) -> None:
    study = write_study(tmp_path / "pair", finals)
    for file in study.path.glob("*/seed=*/manifest.json"):
        manifest = json.loads(file.read_text())
        manifest["hashes"] |= {key: manifest["arm"] if value == "ARM" else value for key, value in hashes.items()}
        file.write_text(json.dumps(manifest))
    analysis = judge(load_study(study.path)).analysis
    assert [note for note in analysis.notes if message in note]


def test_a_race_is_answered_in_its_sentences(tmp_path: Path) -> None:
    finals = {"grpo": [0.40 + seed / 100 for seed in range(10)], "dapo": [0.41 + seed / 100 for seed in range(10)]}
    study = write_study(tmp_path / "race", finals, race=True, failures="worst")
    (each,) = judge(study).analysis.comparisons
    assert each.verdict == "untestable"
    assert "the seed is applied, for prompts differ from seed to seed" in each.sentence
    assert "?" not in each.sentence
