"""Further questions to runs whose evaluations ask a moving average of the weights: that is what they are put to."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

import core.parts.registry as registry
from core.loop.evaluation import reevaluate
from core.loop.run_state import RunState
from experiments.cli.main import main
from experiments.launchers.reevaluation import load_final
from experiments.results.halving import models_kept
from experiments.results.stored_study import load_study
from experiments.study.configs import CONFIGS, build
from tests.experiments.study.test_growth import run_here
from tests.experiments.study.test_reevaluation import SUITE, TINY, further


def test_the_average_answers_further_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.launchers.local.launch", run_here)
    averaged = "\nevaluation.ema_lag = 0.45\nevaluation.samples = 8\nadamw.learning_rate = 0.01\n"
    learning = TINY.replace("train.prompts = 2", "train.prompts = 8").replace(
        "train.group_size = 3", "train.group_size = 8"
    )
    Path("tiny.gin").write_text(learning + averaged)
    command = ["compare", "-c", "tiny.gin", "--seeds", "2", "--out", "out"]
    assert main(command) == 0
    folder = Path("out/tiny/rloo/seed=1")
    assert len(list((folder / "checkpoint/models").iterdir())) == 3
    assert models_kept(load_study(Path("out/tiny"))) == 3
    assert main([*command, *further(4)]) == 0
    with registry.config(["tiny.gin"], ["train.variant = @rloo()"], include_from=[CONFIGS]):
        recipe = build("train")
    state = RunState(recipe, 1, load_final(recipe, folder / "checkpoint"))
    stored = json.loads((folder / f"eval/{SUITE}/step=000003.json").read_text())
    assert reevaluate(state, 3, "test", 4)["summary"]["entropy"] != stored["summary"]["entropy"]
    state.policy.load_state_dict(load_file(folder / "checkpoint/models/step=000003.safetensors"))
    assert reevaluate(state, 3, "test", 4)["questions"] == stored["questions"]
    assert reevaluate(state, 3, "test", 4)["summary"] == stored["summary"]

    # without what was averaged there is nothing to ask
    (folder / "checkpoint/models/step=000003.safetensors").unlink()
    capsys.readouterr()
    assert main([*command, *further(5)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "rloo seed 1 has finished, but its model of step 3 is not in" in said
    assert "What evaluation.ema_lag averages is nowhere else: leave compare.reevaluate out" in said
    assert main([*command[:-1], "other", "-b", "evaluation.keep_models = False", *further(4)[:2]]) == 2
    assert "what evaluation.ema_lag averages is kept where runs end" in " ".join(capsys.readouterr().err.split())
