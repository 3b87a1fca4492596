"""The command line as a user meets it: a study from start to verdict, an estimator of one's own, mistakes, kill -9."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gin
import pytest

from core.parts.registry import REGISTRIES
from experiments.cli.main import main
from experiments.cli.run_study import parse_seeds
from experiments.study.configs import find_config
from tests.experiments.held import write_held
from tests.forked import Forked, grpolab, run_command

SMALL = """
include 'embedded.gin'
train.steps = 6
train.prompts = 4
train.group_size = 4
train.checkpoint_every = 2
evaluation.every = 2
evaluation.questions = 8
compare.name = 'small'
"""

ESTIMATOR = '''
from torch import Tensor
from core import Batch, advantage

@advantage
def median_baseline(batch: Batch) -> Tensor:
    """Reward minus the median of its group."""
    return batch.rewards - batch.rewards.quantile(0.5, dim=1, keepdim=True)    # [P, G]
'''


def program(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder` as it is really started."""
    return subprocess.run(
        [sys.executable, "-m", "experiments.cli.main", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )


def tables(study: Path) -> dict[str, Any]:
    """Everything of a study that a verdict depends on, clocks left out."""
    contents: dict[str, Any] = {}
    for file in sorted(study.glob("*/seed=*/metrics.jsonl")):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        contents[str(file.relative_to(study))] = [{k: v for k, v in r.items() if k != "seconds"} for r in records]
    for file in sorted(study.glob("*/seed=*/eval/*/*.json")):
        contents[str(file.relative_to(study))] = file.read_text()
    for file in sorted(study.glob("*/seed=*/manifest.json")):
        contents[str(file.relative_to(study))] = json.loads(file.read_text())["hashes"]
    return contents


@pytest.mark.slow
def test_an_estimator_of_ones_own_runs_beside_grpo_whatever_the_number_of_workers(tmp_path: Path) -> None:
    (tmp_path / "my_estimators.py").write_text(ESTIMATOR)
    (tmp_path / "mine.gin").write_text(
        f"import my_estimators\n{SMALL}\n"
        "compare.arms = {'grpo': [], 'median': 'grpo.advantage = @median_baseline'}\ncompare.margin = 0.02\n"
    )
    one = program(tmp_path, "compare", "-c", "mine.gin", "--seeds", "3", "--workers", "1", "--json", "--out", "one")
    assert one.returncode == 0, one.stderr
    analysis = json.loads(one.stdout)
    assert [c["arm"] for c in analysis["comparisons"]] == ["median"]
    assert analysis["comparisons"][0]["verdict"] in ("better", "worse", "equivalent", "inconclusive", "untestable")
    assert "0.25" in " ".join(analysis["notes"])
    study = tmp_path / "one" / "small"
    card = json.loads((study / "study.json").read_text())["arms"]["median"]["card"]
    assert "median_baseline" in " ".join(card.values())
    report = (study / "report.html").read_text()
    assert "median" in report
    assert not re.search(r'(?:src|href)="https?:', report)

    two = grpolab(tmp_path, "compare", "-c", "mine.gin", "--seeds", "3", "--workers", "2", "--out", "two")
    assert two.returncode == 0, two.stderr
    assert "inconclusive" in two.stdout or "better" in two.stdout or "worse" in two.stdout or "untest" in two.stdout
    assert tables(study) == tables(tmp_path / "two" / "small")
    again = grpolab(tmp_path, "analyze", "two/small", "--json")
    judged = json.loads(again.stdout)
    for each in (judged, analysis):
        del each["axes"]["seconds"]  # by the clock
    assert judged == analysis

    (tmp_path / "my_estimators.py").write_text(ESTIMATOR.replace("0.5", "0.75"))
    edited = grpolab(tmp_path, "compare", "-c", "mine.gin", "--seeds", "3", "--out", "two")
    assert edited.returncode == 2
    assert "its code of your parts changed" in edited.stderr


HELD_ARMS = """
import held
compare.arms = {'mean': 'grpo.advantage = @group_mean', 'held': 'grpo.advantage = @held_mean'}
"""


@contextmanager
def grpolab_under_way(folder: Path, *arguments: str) -> Iterator[Forked]:
    """The command in `folder` while it runs, in a session of its own; it is killed on leaving."""
    process = Forked(run_command, *arguments, folder=folder, environment=os.environ | {"PYTHONUNBUFFERED": "1"})
    try:
        yield process
    finally:
        process.end()


def wait_for(condition: Callable[[], bool], process: Forked) -> None:
    """Until something is so, as long as the process lives."""
    while not condition():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)


@pytest.mark.slow
def test_a_study_that_was_killed_ends_like_one_that_was_not(tmp_path: Path) -> None:
    (tmp_path / "study.gin").write_text(HELD_ARMS + SMALL)
    hold = write_held(tmp_path / "held.py", free=2)
    command = ["compare", "-c", "study.gin", "--seeds", "2", "--workers", "2", "--out"]
    whole = grpolab(tmp_path, *command, "whole")
    assert whole.returncode == 0, whole.stderr

    study = tmp_path / "cut" / "small"
    hold.touch()
    with grpolab_under_way(tmp_path, *command, "cut") as process:
        states: list[str] = []

        def one_is_finished_and_another_on_its_way() -> bool:
            states[:] = [json.loads(p.read_text())["status"] for p in study.glob("*/seed=*/manifest.json")]
            return "finished" in states and "running" in states

        wait_for(one_is_finished_and_another_on_its_way, process)
    hold.unlink()
    done = [p.parent for p in study.glob("*/seed=*/manifest.json") if json.loads(p.read_text())["status"] == "finished"]
    files = (p for folder in done for p in folder.rglob("*.json*") if "checkpoint" not in p.parent.name)
    before = {p: p.stat().st_mtime_ns for p in files}
    assert before

    resumed = grpolab(tmp_path, *command, "cut")
    assert resumed.returncode == 0, resumed.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert tables(study) == tables(tmp_path / "whole" / "small")


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(tmp_path: Path) -> None:
    (tmp_path / "study.gin").write_text(HELD_ARMS + SMALL)
    hold = write_held(tmp_path / "held.py", free=2)
    hold.touch()
    metrics = tmp_path / "runs" / "small" / "held" / "seed=0" / "metrics.jsonl"
    with grpolab_under_way(tmp_path, "compare", "-c", "study.gin", "--seeds", "1", "--workers", "1") as process:
        wait_for(lambda: metrics.is_file() and metrics.read_text().count("\n") > 1, process)
        process.send_signal(signal.SIGINT)
        shown = ""
        for line in process.stdout:
            shown += line
            if "stopping at the end of the present steps" in line:
                hold.unlink()
        assert process.wait() == 130, shown
    assert "the same command goes on" in shown
    assert "Traceback" not in shown
    manifest = json.loads((metrics.parent / "manifest.json").read_text())
    assert manifest["status"] == "interrupted"
    assert (metrics.parent / "checkpoint" / "state.pt").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "-c", "dmeo"], r"config file not found: dmeo.*did you mean demo"),
        (["compare"], "compare needs a study"),
        (["compare", "-c", "demo", "--seeds", "x"], "--seeds x: give a number"),
        (["compare", "-c", "demo", "-b", "compare.variants = [@gpro]"], "did you mean .*grpo.*grpolab list shows all"),
        (["compare", "-c", "demo", "-b", "train.stesp = 3"], "did you mean steps"),
        (["compare", "-c", "demo", "--out", "/proc/nowhere"], r"cannot write /proc/nowhere.*--out"),
        (["describe", "grop"], "unknown part 'grop': did you mean grpo"),
        (["describe", "clip", "--diff", "grpo"], "--diff compares two variants"),
        (["list", "variant"], "did you mean variants"),
        (["analyze", "/nowhere"], "/nowhere"),
        (["compare", "mine.gin"], r"mine.gin: a config goes after -c: grpolab compare -c mine.gin"),
        (["train", "-b", "rloo.aggregator = @token_mean"], "'rloo' is not used here, but grpo"),
        (["train", "-b", "policy.model = './nope'"], "there is no such folder"),
        (["train", "-b", "train.variant = @grpo_process()"], "'step_ends', which no provider fills; register one"),
        (["check", "nope.py"], "nope.py"),
        (["check", "grop"], "did you mean grpo"),
        (["lens", "rlo"], "unknown variant or advantage 'rlo': did you mean rloo"),
        (["lens", "rloo", "--group-size", "1"], "rloo"),
        (["lens", "rloo", "--rollouts", "0"], "--rollouts = 0: must be a whole number from 1 up"),
        (
            ["describe", "grpo", "-b", "clip.eps_low = -0.5"],
            "clip.eps_low = -0.5: must be a number from 0 up",
        ),
        (["describe", "cispo_clip", "-b", "cispo_clip.eps_high = 'x'"], "cispo_clip.eps_high = 'x': must be a number"),
        (["describe", "grpo", "-b", "group_mean_std.correction = 9"], "must be a whole number from 0 to 1"),
        (
            ["train", "-b", "train.variant = @dapo()", "-b", "soft_overlong.buffer = 0"],
            "a number above 0 and up to 1",
        ),
        (["describe", "grpo", "-b", "grpo.kl_coef = -1.0"], "grpo.kl_coef = -1.0: must be a number from 0 up"),
        (["describe", "grpo", "--diff", "dapo", "-b", "rloo.kl_coef = 1.0"], "'rloo.kl_coef' had no effect"),
        (["describe", "clip", "-b", "gspo.advantage = @group_mean"], "'gspo' is not used here"),
    ],
)
def test_mistakes_are_one_readable_message(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir()), "something half-done was left behind"


def test_list_and_describe_show_what_is_registered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "variants"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("grpo", "dr_grpo", "dapo", "rloo", "remax", "reinforce"))
    assert main(["describe", "dapo", "-b", "dapo.eps_high = 0.4"]) == 0
    shown = capsys.readouterr().out
    assert "1 - 0.2 to 1 + 0.4" in shown
    assert "arXiv:2503.14476" in shown
    assert "A_i  = (r_i - mean(r)) / (std(r) + eps)" in shown
    sources = {
        line.split()[0]: line.split("(")[-1].split(")")[0]
        for line in shown.splitlines()
        if " = " in line and "." in line
    }
    assert sources["dapo.eps_high"] == "your binding"
    assert sources["dapo.eps_low"] == "published: DAPO, section 4.1"
    assert sources["clip.eps_high"] == "set by dapo.eps_high"
    assert sources["group_mean_std.eps"] == "default"
    assert main(["describe", "dr_grpo", "--diff", "grpo"]) == 0
    axes = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert axes == ["dr_grpo", "std", "aggregation", "KL"]
    assert main(["describe", "gspo_clip", "-b", "gspo_clip.eps_low = 0.1"]) == 0
    shown = capsys.readouterr().out
    assert "s_i = exp(mean_t d_it)" in shown
    assert re.search(r"gspo_clip.eps_low +=.* 0.1 +\(your binding\)", shown)


def test_describe_shows_what_the_lens_measured_of_a_variant_as_it_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The figures of the page; of other settings and of one's own variants the commands alone."""

    def described(*words: str) -> str:
        assert main(["describe", *words]) == 0
        return capsys.readouterr().out

    page = (Path(__file__).parents[3] / "docs" / "variants.md").read_text()
    shown = described("grpo")
    rows = {line.split("  ")[1]: line.split() for line in shown.splitlines() if "grpolab lens" in line}
    assert list(rows) == ["sampled, on-policy", "exact, 0 updates old", "exact, 8 updates old"]
    on_policy, fresh, old = rows.values()
    (row,) = (line.split(" | ") for line in page.splitlines() if line.startswith("| [grpo](#grpo) |"))
    assert [" ".join(on_policy[3:6]), " ".join(on_policy[6:9])] == row[5:7]
    assert old[4:6] == [row[9], row[10].removesuffix(" |")]
    assert f"| {fresh[4]} | {old[4]} | {fresh[5]} | {old[5]} |" in page
    assert shown.endswith("  grpolab lens grpo --age 0 8\n")
    assert "counts as bias: shaping by soft_overlong.\n" in described("dapo")
    bound = described("rloo", "-b", "rloo.kl_coef = 0.1")
    assert "sampled, on-policy" not in bound
    assert "of older responses:                 grpolab lens rloo -b 'rloo.kl_coef = 0.1' --age 0 8\n" in bound
    assert "lens" not in described("clip")
    assert "lens" not in described("dapo", "--diff", "grpo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("of_ones_own.py").write_text(
        "from core import VARIANTS, Variant, variant\n\n@variant\ndef of_ones_own() -> Variant:\n"
        "    'GRPO by another name.'\n    return VARIANTS['grpo']()\n"
    )
    try:
        assert "grpolab lens of_ones_own.py --age 0 8\n" in described("of_ones_own.py")
    finally:
        gin.config._REGISTRY.pop(REGISTRIES["variant"]._parts.pop("of_ones_own").selector)


def test_describe_takes_a_file_and_a_setting_and_says_what_a_value_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "described_in_a_test.py").write_text(
        "from core import reward\n\n@reward(limits={'share': (0, 1)})\n"
        "def described_in_a_test(problem, response, *, share: float = 0.5, free=None):\n"
        "    'A share.'\n    return share\n"
    )
    (tmp_path / "more.gin").write_text("import described_in_a_test\n")
    try:
        assert main(["describe", str(tmp_path / "described_in_a_test.py")]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("reward described_in_a_test  (")
        assert re.search(r"described_in_a_test\.share += 0\.5 +\(default\) +a number from 0 to 1\n", shown)
        assert re.search(r"described_in_a_test\.free += None +\(default\)\n", shown)
        assert main(["list", "rewards", "-c", str(tmp_path / "more.gin")]) == 0
        assert "described_in_a_test" in capsys.readouterr().out
    finally:
        gin.config._REGISTRY.pop(REGISTRIES["reward"]._parts.pop("described_in_a_test").selector)
    assert main(["describe", "train", "-c", "embedded"]) == 0
    shown = capsys.readouterr().out
    assert " at 0x" not in shown
    assert re.search(r"train\.variant += @grpo\(\) +\(your binding\) +a variant, with brackets", shown)
    assert re.search(r"train\.steps += 40 +\(your binding\) +a whole number from 1 up\n", shown)
    assert main(["describe", "train"]) == 0
    assert re.search(r"train\.variant += \(to be bound\)", capsys.readouterr().out)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert re.fullmatch(r"grpolab \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_compare_warns_of_arms_that_differ_in_several_respects(capsys: pytest.CaptureFixture[str]) -> None:
    arms = (
        "compare.arms = {'grpo': [], 'one': 'grpo.advantage = @group_mean', 'two': 'train.variant = @dr_grpo()', "
        "'three': ['clip.eps_high = 0.3', 'train.group_size = 4'], 'four': 'grpo.objective = @policy_gradient'}"
    )
    assert main(["compare", "-c", "embedded", "-b", arms, "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "'two' and 'grpo' differ in 2 respects (advantage: std; aggregator: aggregation): a verdict is" in shown
    assert "'three' and 'grpo' differ in 2 respects (objective: clip; train.group_size): a verdict is" in shown
    assert "'one'" not in shown
    assert "'four'" not in shown


@pytest.mark.slow
def test_check_and_lens_take_a_file_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "own_estimators_for_cli.py"
    file.write_text(
        "from core import advantage\n\n\n@advantage\ndef own_mean_for_cli(batch):\n"
        '    """Reward minus the mean of its group."""\n'
        "    return batch.rewards - batch.rewards.mean(1, keepdim=True)\n"
    )
    checked = grpolab(Path.cwd(), "check", str(file))
    assert checked.returncode == 1  # float32: seven times 0.7 is not exactly its mean
    assert "no spread, not nearly 0" in checked.stdout
    assert "Batch.no_spread" in " ".join(checked.stdout.split())
    lens_result = grpolab(
        Path.cwd(),
        "lens",
        str(file),
        "--batches",
        "100",
        "--group-sizes",
        "2",
        "--json",
        "--out",
        str(tmp_path / "lens"),
    )
    assert lens_result.returncode == 0, lens_result.stderr
    numbers = json.loads(lens_result.stdout)["variants"]["own_mean_for_cli"]["by_group_size"]["8"]
    assert numbers["factor"]["value"] == pytest.approx(7 / 8, abs=5 * numbers["factor"]["error"])
    assert list((tmp_path / "lens").glob("*.svg"))


def test_seeds_are_a_number_or_a_list() -> None:
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("4,7") == (4, 7)


def test_a_config_of_ones_own_wins_over_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("demo") == find_config("demo.gin") != "demo.gin"
    (tmp_path / "demo.gin").write_text("")
    assert find_config("demo.gin") == "demo.gin"


@pytest.mark.slow
def test_a_race_ends_when_all_is_decided_and_says_so_without_a_fixed_n_p(tmp_path: Path) -> None:
    """An arm whose responses are cut after two tokens is wrong on every seed: six rows decide, four are never run."""
    (tmp_path / "small.gin").write_text(SMALL)
    (tmp_path / "race.gin").write_text(
        "include 'small.gin'\ntrain.steps = 3\nevaluation.every = 1\ntrain.prompts = 2\ntrain.group_size = 2\n"
        "compare.arms = {'grpo': [], 'short': 'train.max_tokens = 2'}\ncompare.seeds = 10\n"
    )
    raced = grpolab(tmp_path, "compare", "-c", "race.gin", "--race", "--json")
    assert raced.returncode == 0, raced.stderr
    analysis = json.loads(raced.stdout)
    folders = sorted(path.name for path in (tmp_path / "runs" / "small" / "short").iterdir())
    rows = analysis["sequential"]["row"]
    assert analysis["sequential"]["stop"] == "decided"
    assert folders == sorted(f"seed={seed}" for seed in range(rows))
    assert 6 <= rows < 10
    assert analysis["comparisons"][0]["verdict"] == "worse"
    assert analysis["comparisons"][0]["p_t"] is None
    assert "paired t" not in raced.stdout
    again = grpolab(tmp_path, "compare", "-c", "race.gin", "--race", "--json")  # nothing is left to run
    assert json.loads(again.stdout) == analysis


@pytest.mark.slow
def test_arms_that_spend_a_token_budget_in_different_numbers_of_steps_are_a_pair(tmp_path: Path) -> None:
    """Their prompts are compared as far as both have come; everything is judged within the budget."""
    (tmp_path / "small.gin").write_text(SMALL)
    (tmp_path / "tokens.gin").write_text(
        "include 'small.gin'\ntrain.steps = 40\nevaluation.every = 1\ntrain.token_budget = 800\n"
        "compare.arms = {'grpo': [], 'greedy': 'train.variant = @remax()'}\ncompare.seeds = 3\n"
    )
    result = grpolab(tmp_path, "compare", "-c", "tokens.gin", "--json")
    assert result.returncode == 0, result.stderr
    analysis = json.loads(result.stdout)
    assert (analysis["axis"], analysis["plan"]["budget"]) == ("sampled_tokens", 800)
    assert analysis["comparisons"][0]["n"] == 3
    steps = {}
    for file in sorted((tmp_path / "runs" / "small").glob("*/seed=*/metrics.jsonl")):
        last = json.loads(file.read_text().splitlines()[-1])
        assert last["total_sampled_tokens"] <= 800
        steps[file.parts[-3], file.parts[-2]] = last["step"]
    assert any(steps["grpo", f"seed={seed}"] > steps["greedy", f"seed={seed}"] for seed in range(3))


def test_a_finished_run_is_not_taken_for_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "train",
        "-b",
        "train.prompts = 2",
        "-b",
        "train.group_size = 2",
        "-b",
        "train.max_tokens = 4",
        "-b",
        "evaluation.questions = 1",
        "--out",
        str(tmp_path),
    ]
    assert main([*command, "-b", "train.steps = 1"]) == 0
    assert main([*command, "-b", "train.steps = 1"]) == 0
    assert main([*command, "-b", "train.steps = 2"]) == 2
    assert "cannot be resumed: its config changed" in capsys.readouterr().err
