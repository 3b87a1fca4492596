"""`grpolab lens` as a user meets it: tables, JSON, pictures, an estimator of one's own, and mistakes."""

import argparse
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

import core.parts.registry as registry
from core import GrpoLabError
from core.model.policy import Policy
from core.store.run_folder import RunStore
from experiments.cli.lens import run_lens
from experiments.cli.lens_options import add_options
from experiments.study.configs import CONFIGS

ESTIMATOR = '''
from torch import Tensor
from core import Batch, advantage

@advantage
def half_reward(batch: Batch) -> Tensor:
    """Half the reward."""
    return batch.rewards / 2    # [P, G]
'''
QUICK = ["--batches", "40", "--group-sizes", "2,8"]


def lens(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return run_lens(parser.parse_args(arguments))


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert lens(*arguments, "--json") == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_the_exact_form_as_json_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = as_json(capsys, "grpo", "rloo", "dr_grpo", "dapo", *QUICK, "--out", str(tmp_path / "new"))
    assert list(result["variants"]) == ["grpo", "rloo", "dr_grpo", "dapo"]
    assert result == json.loads((tmp_path / "new" / "exact.json").read_text())
    rloo, dr_grpo = result["variants"]["rloo"], result["variants"]["dr_grpo"]
    assert list(rloo["by_group_size"]) == ["2", "8"]
    numbers = rloo["by_group_size"]["8"]
    assert abs(numbers["factor"]["value"] - 1) < 4 * numbers["factor"]["error"]
    assert numbers["direction_bias"]["low"] == 0
    assert dr_grpo["token_constant"] == pytest.approx(5)
    ratio = dr_grpo["by_group_size"]["8"]["factor"]["value"] / numbers["factor"]["value"]
    assert ratio == pytest.approx(7 / 8)
    assert "factor" not in result["variants"]["grpo"]["by_group_size"]["8"]
    assert [round(each["success"], 2) for each in rloo["by_prompt"]] == [0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97]
    assert rloo["weights_by_length"]["right"][0] == {"value": None, "error": None}  # no right response is that short
    assert any("dapo optimises more than the reward" in remark for remark in result["remarks"])
    picture = ElementTree.fromstring((tmp_path / "new" / "exact.svg").read_text())
    assert picture.tag.endswith("svg")
    assert not list((tmp_path / "new").glob(".tmp*"))


def test_the_tables_fit_a_terminal_and_say_where_the_files_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert lens("grpo", "rloo", *QUICK, "--out", str(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert "E[g] = c * true" in " ".join(shown.split())
    assert re.search(r"^ rloo +[01]\.\d{3}±\.\d{3}", shown, re.MULTILINE)
    assert "exact.svg" in shown


def test_an_estimator_of_ones_own_needs_its_file_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lens_estimators.py").write_text(ESTIMATOR)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    result = as_json(capsys, "rloo", str(tmp_path / "lens_estimators.py"), *QUICK, "--out", str(tmp_path))
    assert list(result["variants"]) == ["rloo", "half_reward"]
    factor = result["variants"]["half_reward"]["by_group_size"]["8"]["factor"]
    assert abs(factor["value"] - 0.5) < 4 * factor["error"]


def test_bindings_reach_the_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bound = ["-b", "grpo.advantage = @leave_one_out", "-b", "grpo.aggregator = @seq_mean_token_sum"]
    result = as_json(capsys, "grpo", "rloo", *bound, *QUICK, "--out", str(tmp_path))
    one, other = (result["variants"][name]["by_group_size"]["8"]["scale"] for name in ("grpo", "rloo"))
    assert one["value"] == pytest.approx(other["value"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rlo"], "unknown variant or advantage 'rlo': did you mean rloo"),
        (["no_such_file.py"], "file not found: no_such_file.py"),
        (["rloo", "--group-size", "1"], "defined from 2 samples per prompt up; raise --group-size"),
        (["rloo", "--group-sizes", "two"], "--group-sizes two: give a list of numbers"),
        (["rloo", "--batches", "3"], "--batches 3: at least"),
        (["rloo", "-b", "grpo.kl_coef = 0.1"], "'grpo.kl_coef' had no effect"),
        (["rloo", "--model", "no_such_config"], "config file not found: no_such_config"),
        (["rloo", "--model", "embedded", "--prompts", "1"], "raise --prompts"),
    ],
)
def test_mistakes_are_reported(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(GrpoLabError, match=re.escape(message)):
        lens(*arguments, "--out", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_on_a_model_by_config_and_by_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], embedded: Policy) -> None:
    pool = ["--prompts", "8", "--group-size", "4", "--out", str(tmp_path)]
    result = as_json(capsys, "rloo", "grpo", "--model", "embedded", *pool)
    assert result["variants"]["rloo"]["cosines"]["rloo"] == pytest.approx(1)
    assert 0 < result["accuracy"] < 1
    assert (tmp_path / "model.svg").is_file()

    with pytest.raises(GrpoLabError, match="no finished run is there"):
        lens("rloo", "--model", str(tmp_path), *pool)
    with registry.config([CONFIGS / "embedded.gin"]):
        text = registry.config_text()
    store = RunStore(tmp_path / "run")
    store.folder.mkdir()
    store.update_manifest(identity={"config": text})
    store.finish(embedded)
    again = as_json(capsys, "rloo", "grpo", "--model", str(store.folder), *pool)
    assert again["variants"] == result["variants"]


def test_by_age_as_json_picture_and_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["rloo", "--age", "0", "8", "--group-size", "2", "--out", str(tmp_path)]
    result = as_json(capsys, *arguments)
    assert result["at"] == [0, 8]
    assert result["nats_a_token"][0] == 0
    fresh, old = result["variants"]["rloo"]["at"]
    assert fresh["bias"] < 1e-6
    assert fresh["factor"] == pytest.approx(1)
    assert old["direction_bias"] > 0.01
    assert old["mse"] == pytest.approx(old["variance"] + old["direction_bias"] ** 2)
    assert result == json.loads((tmp_path / "age.json").read_text())
    assert ElementTree.fromstring((tmp_path / "age.svg").read_text()).tag.endswith("svg")

    assert lens(*arguments) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert re.search(r"^ +age 0 +age 8", shown, re.MULTILINE)
    assert re.search(r"^ rloo +0\.0000 +0\.\d{4}", shown, re.MULTILINE)
    assert "one group of 2 is enumerated" in " ".join(shown.split())


def test_ages_are_a_list_either_way_and_have_a_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--group-size", "2", "--out", str(tmp_path)]
    assert as_json(capsys, "rloo", "--age", "3,1", *out)["at"] == [1, 3]
    assert as_json(capsys, "rloo", "--age", *out)["at"] == [0, 1, 2, 4, 8, 16]
    result = as_json(capsys, "rloo", "--mismatch", "1e-3", "0", *out)
    assert result["at"] == [0, 1e-3]
    assert result["nats_a_token"] == pytest.approx([0, 1e-3])
    assert (tmp_path / "mismatch.svg").is_file()


def test_parts_are_put_into_every_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bound = ["-b", "token_truncated.cap = 1.0", "--group-size", "2", "--out", str(tmp_path)]
    parts = ["none", "token_truncated", "sequence_masked+token_mean"]
    result = as_json(capsys, "rloo", "grpo", "--age", "8", "--parts", *parts, *bound)
    names = ["rloo", "rloo+token_truncated", "rloo+sequence_masked+token_mean"]
    assert list(result["variants"]) == names + [name.replace("rloo", "grpo") for name in names]
    card = result["variants"]["rloo+token_truncated"]["card"]
    assert "cap=1.0" in card["correction"]
    assert "mean over all tokens" in result["variants"]["grpo+sequence_masked+token_mean"]["card"]["aggregation"]


def test_all_of_a_kind_are_measured_and_what_cannot_be_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--group-size", "2", "--out", str(tmp_path)]
    result = as_json(capsys, "grpo", "--age", "8", "--parts", "corrections", "anchors", *out)
    assert {"grpo", "grpo+sequence_truncated", "grpo+trainer", "grpo+sampler", "grpo+loglinear"} <= set(
        result["variants"]
    )
    by_name = result["variants"]
    assert by_name["grpo"]["at"] == by_name["grpo+trainer"]["at"]
    result = as_json(capsys, "reinforce", "--age", "8", "--parts", "anchors", *out)
    assert list(result["variants"]) == ["reinforce+trainer"]
    assert sum("would change nothing" in remark for remark in result["remarks"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rloo", "--age", "-1"], "--age = -1: must be a whole number from 0 to 1,000"),
        (["rloo", "--age", "1.5"], "--age = '1.5': must be a whole number"),
        (["--age", "2", "grpo", "--parts", "none", "--seed", "0", "rloo"], "what to measure is named before --age"),
        (["rloo", "--mismatch", "2"], "--mismatch = 2.0: must be a number from 0 to 0.5"),
        (["rloo", "--age", "2", "--batches", "100"], "--batches has no effect with --age"),
        (["rloo", "--mismatch", "--model", "embedded"], "--model has no effect with --mismatch"),
        (["rloo", "--age", "2", "--group-size", "16"], "too many to enumerate"),
        (
            ["grpo", "--age", "2", "--parts", "token_trunctated"],
            "no part 'token_trunctated': did you mean",
        ),
        (["grpo", "--age", "2", "--parts", "clip+sapo_gate"], "a variant has one objective; leave out 'sapo_gate'"),
        (["grpo", "--age", "2", "--parts", "sampler+token_truncated"], "would count it twice"),
        (["reinforce", "--age", "2", "--parts", "sampler"], "would change nothing"),
        (["rloo", "--age", "2", "-b", "token_truncated.cap = 3.0"], "'token_truncated.cap' had no effect"),
    ],
)
def test_mistakes_off_policy_are_reported(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(GrpoLabError, match=re.escape(message)):
        lens(*arguments, "--out", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_on_turns_as_json_picture_and_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["rloo", "grpo", "--turns", "2", "--group-size", "2", "--out", str(tmp_path)]
    result = as_json(capsys, *arguments)
    assert result == json.loads((tmp_path / "turns.json").read_text())
    assert [result["turns"], result["group_size"], result["turn_reward"]] == [2, 2, -0.2]
    rloo, grpo = result["variants"]["rloo"], result["variants"]["grpo"]
    assert rloo["bias"] < 1e-6
    assert rloo["angle"] < 1e-3 < grpo["angle"]
    for mine, true in zip(rloo["push"], result["true_push"], strict=True):
        assert mine["turn_reward"] == true["turn_reward"]
        assert mine["by_prompt"] == pytest.approx(true["by_prompt"])
    assert ElementTree.fromstring((tmp_path / "turns.svg").read_text()).tag.endswith("svg")

    assert lens(*arguments) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert re.search(r"^ rloo +1\.000 +1\.000 +0\.000 +0\.000 +0\.0", shown, re.MULTILINE)
    assert re.search(r"^ true gradient +\+0\.046 +−0\.004 +−0\.052", shown, re.MULTILINE)
    assert "one group of 2 is enumerated" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["remax", "--turns", "2"], "'remax' needs greedy_rewards"),
        (["rloo", "--turns", "2", "--model", "embedded"], "--model has no effect with --turns"),
        (["rloo", "--turns", "2", "--batches", "100"], "--batches has no effect with --turns"),
        (["rloo", "--turns", "3", "--group-size", "8"], "too many to enumerate"),
        (["rloo", "--turns", "2", "--group-size", "1"], "defined from 2 samples per prompt up"),
    ],
)
def test_mistakes_on_turns_are_reported(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(GrpoLabError, match=re.escape(message)):
        lens(*arguments, "--out", str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--turns", "4"], ["--turns", "2", "--age", "1"]])
def test_what_turns_cannot_be_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lens("rloo", *arguments)
    assert ("choose from" if len(arguments) == 2 else "not allowed with argument") in capsys.readouterr().err
