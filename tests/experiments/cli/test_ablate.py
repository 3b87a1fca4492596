"""`grpolab ablate` as a user meets it, and the plan that it shares with `compare`."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from experiments.cli.main import main
from experiments.launchers.job import Job
from experiments.study.study import prepare_study

TINY = """
include 'embedded.gin'
train.steps = 3
train.prompts = 2
train.group_size = 4
train.max_tokens = 8
evaluation.every = 1
evaluation.questions = 2
evaluation.split = 'test'
ablate.axes = {'grpo.advantage': [@group_mean_std, @group_mean], 'adamw.learning_rate': [3e-4, 1e-3]}
ablate.names = {'adamw.learning_rate': 'rate'}
compare.name = 'tiny'
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.gin").write_text(TINY)
    return tmp_path


def test_an_ablation_from_axes_to_verdicts(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "-c", "tiny.gin", "--seeds", "3", "--workers", "1", "--json"]) == 0
    analysis = json.loads(capsys.readouterr().out)
    assert [(c["arm"], c["baseline"]) for c in analysis["comparisons"]] == [
        ("advantage=group_mean", "base"),
        ("rate=0.001", "base"),
    ]
    folder = tiny / "runs" / "tiny"
    record = json.loads((folder / "study.json").read_text())
    assert record["declaration"]["ablation"]["design"] == "one_at_a_time"
    assert record["arms"]["rate=0.001"]["bindings"] == ["adamw.learning_rate = 0.001"]
    manifest = json.loads((folder / "rate=0.001" / "seed=2" / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert "adamw.learning_rate = 0.001" in manifest["identity"]["config"]
    assert "ablate." not in manifest["identity"]["config"]
    assert "advantage=group_mean" in (folder / "report.html").read_text()
    # the finished runs now give the cost of more
    assert main(["ablate", "-c", "tiny.gin", "--seeds", "8", "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "measured on finished runs in runs;" in shown


def test_a_dry_run_measures_the_baseline_and_leaves_nothing_behind(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", "-c", "tiny.gin", "--seeds", "8", "--workers", "2", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "rate=0.001\n  adamw.learning_rate = 0.001\n" in shown
    assert "advantage=group_mean\n  grpo.advantage = @group_mean\n    std: none  (instead of group, ddof 1" in shown
    assert "runs    3 arms x 8 seeds = 24\n" in shown
    tokens = re.search(r"tokens  ([\d,]+) sampled in training, at most ([\d,]+)", shown)
    assert tokens
    sampled, most = (int(text.replace(",", "")) for text in tokens.groups())
    assert most == 24 * 3 * 2 * 4 * 8
    assert 24 * 3 * 2 * 4 <= sampled <= most, "every response has a token at least"
    assert re.search(r"time    \d+:\d\d:\d\d of work, \d+:\d\d:\d\d with 2 at once", shown)
    assert "measured on 2 steps of 'base' on this machine" in shown
    assert re.search(r"memory  [\d.]+ [MG]iB a run \(peak of the measured steps\)", shown)
    match = re.search(r"8 seeds detect ([\d.]+) sd of the paired difference \(2 comparisons, alpha 0.025 each", shown)
    assert match
    shift, critical = float(match[1]) * math.sqrt(8), stats.t.ppf(1 - 0.0125, 7)
    assert stats.nct.sf(critical, 7, shift) == pytest.approx(0.8, abs=0.005)
    assert sorted(path.name for path in tiny.iterdir()) == ["tiny.gin"]


def test_without_a_probe_nothing_runs_and_memory_is_an_estimate(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.launchers.job.run_job", lambda *_: pytest.fail("a step was run"))
    command = ["compare", "-c", "embedded", "-b", "compare.variants = [@grpo, @dapo]", "--seeds", "2"]
    assert main([*command, "--dry-run", "--no-probe"]) == 0
    shown = capsys.readouterr().out
    assert "time    not known" in shown
    assert re.search(r"memory  \d+ MiB a run, forecast \(phase '\w+': weights 1 MiB", shown)
    assert "2 seeds decide nothing: a test takes 3 or more" in shown
    assert "filter: nonuniform(), at most 10 rounds  (instead of none)" in shown


def test_the_plan_of_a_study_that_may_end_early_has_no_power_of_a_fixed_number_of_seeds(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each look by itself: two comparisons halve its level, and the noncentral t has 80 % power at what is printed."""
    command = ["ablate", "-c", "tiny.gin", "--dry-run", "--no-probe"]
    assert main([*command, "--seeds", "10", "--race"]) == 0
    shown = capsys.readouterr().out
    assert "runs/tiny: at most 3 arms x 10 seeds x 3 steps" in shown
    assert "runs    at most 3 arms x 10 seeds = 30\n" in shown
    assert (
        "power   less than that of 10 seeds with a single look at the end: a race pays for looking after every seed\n"
        in shown
    )
    assert "seeds detect" not in shown
    assert "seeds needed" not in shown
    assert main([*command, "--seeds", "12", "-b", "compare.looks = ((8, 0.01), (12, 0.04))"]) == 0
    shown = capsys.readouterr().out
    assert "runs    at most 3 arms x 12 seeds = 36\n" in shown
    assert "power   less than that of 12 seeds with a single look at the end: alpha is split among 2 looks\n" in shown
    looks = re.findall(r"look after (\d+) seeds, level ([\d.]+): ([\d.]+) sd of the paired difference", shown)
    assert [(n, level) for n, level, _ in looks] == [("8", "0.01"), ("12", "0.04")]
    for n, level, effect in looks:
        critical = stats.t.ppf(1 - float(level) / 4, int(n) - 1)
        power = stats.nct.sf(critical, int(n) - 1, float(effect) * math.sqrt(int(n)))
        assert power == pytest.approx(0.8, abs=0.005)
    assert main([*command, "--seeds", "10"]) == 0
    assert "at most 3 arms" not in capsys.readouterr().out


def test_an_ablation_is_the_comparison_of_its_arms(tiny: Path) -> None:
    """Runs of an axis's value are those of the same binding written down by hand."""
    ablated = prepare_study(["tiny.gin"], [], [0])
    by_hand = TINY.split("ablate.axes")[0] + (
        "grpo.advantage = @group_mean_std\ncompare.name = 'tiny'\n"
        "compare.arms = {'base': [], 'advantage=group_mean': 'grpo.advantage = @group_mean', "
        "'rate=0.001': 'adamw.learning_rate = 0.001'}\n"
    )
    (tiny / "by_hand.gin").write_text(by_hand)
    compared = prepare_study(["by_hand.gin"], [], [0])
    assert ablated.config == compared.config
    assert ablated.settings == compared.settings
    assert ablated.recipes == compared.recipes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablate"], "ablate needs axes: -c FILE.gin"),
        (["ablate", "-c", "demo"], "ablate needs axes: bind ablate.axes = .*for grpolab compare"),
        (["ablate", "-c", "tiny.gin", "-b", "ablate.desing = 'grid'"], "did you mean design"),
        (["ablate", "-c", "tiny.gin", "-b", "ablate.axes = {'grpo.clip': [1, 2]}"], "'grpo' has no parameter 'clip'"),
    ],
)
def test_mistakes_are_one_readable_message(
    arguments: list[str], message: str, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)
    assert sorted(path.name for path in tiny.iterdir()) == ["tiny.gin"]


def test_the_file_of_an_ablation_can_be_trained_and_compared_from(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []

    def launch(given: list[Job], *_: Any) -> dict[tuple[str, int], str]:
        jobs.extend(given)
        return {}

    monkeypatch.setattr("experiments.launchers.local.launch", launch)
    assert main(["train", "-c", "tiny.gin"]) == 0
    assert "train.group_size = 4" in jobs[0].config
    assert "ablate." not in jobs[0].config
    capsys.readouterr()
    assert main(["compare", "-c", "tiny.gin", "--dry-run", "--no-probe"]) == 0
    assert "rate=0.001" in capsys.readouterr().out
