"""The door from Python: its names, and that what it gives is what the files and the command line give."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core import Batch, GrpoLabError, advantage
from experiments import lab
from experiments.cli.main import main
from experiments.results.stored_study import load_study
from experiments.statistics import Curve, Plan, Trajectory, judge

OLD = Path(__file__).parents[2] / "data" / "old_tree" / "runs"
LOOSE: Any = lab  # its mistakes are no types
SCORES = {
    "grpo": {0: 0.60, 1: 0.62, 2: 0.58, 3: 0.61},
    "mine": {0: 0.66, 1: 0.67, 2: 0.65, 3: 0.66},
}


def test_the_public_names_are_these() -> None:
    assert sorted(lab.__all__) == dir(lab)
    assert lab.__all__ == [
        "STYLE",
        "Batch",
        "GrpoLabError",
        "Lens",
        "OffPolicyLens",
        "Run",
        "Study",
        "TurnsLens",
        "Variant",
        "Verdicts",
        "advantages",
        "compare",
        "judge",
        "lens",
        "lens_off_policy",
        "lens_turns",
        "load_run",
        "load_study",
        "loss",
        "plot_coupling",
        "plot_curves",
        "plot_differences",
        "plot_interquartile_means",
        "plot_pass_at_k",
        "plot_profile",
        "plot_ranks",
        "plot_scores",
        "train",
        "variant",
    ]
    for name in lab.__all__:
        assert getattr(lab, name).__doc__ or name == "STYLE"
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = lab.nope  # type: ignore[attr-defined]


def test_scores_become_a_verdict() -> None:
    verdicts = lab.judge(SCORES, baseline="grpo", margin=0.01)
    row = verdicts.table().iloc[0]
    assert (row["arm"], row["baseline"], row["seeds"], row["verdict"]) == ("mine", "grpo", 4, "better")
    # differences .06 .05 .07 .05: mean .0575, sd .00957, t interval .0575 -+ 3.182 * .00957 / 2
    assert row["difference"] == pytest.approx(0.0575)
    assert (row["low"], row["high"]) == (pytest.approx(0.04227, abs=1e-5), pytest.approx(0.07273, abs=1e-5))
    assert verdicts["mine"].verdict == "better"
    assert verdicts.summary == ["mine is better than grpo: +0.058, between +0.042 and +0.073; 4 seeds"]
    assert verdicts.summary[0] in str(verdicts)
    assert verdicts.summary[0] in (verdicts._repr_html_() or "")
    assert verdicts.sentences[0].startswith(
        "mine vs grpo on score at equal budget: better (model-based); mean difference +0.0575"
    )
    assert verdicts.scores().loc[2].tolist() == [0.58, 0.65]
    assert "better" in (verdicts._repr_html_() or "")
    assert repr(verdicts) == str(verdicts)
    assert [each.arm for each in verdicts] == ["mine"]
    assert len(verdicts) == 1
    with pytest.raises(GrpoLabError, match="no verdict on 'mime': did you mean"):
        _ = verdicts["mime"]


def test_means_are_over_the_seeds_that_were_compared() -> None:
    """In a race the baseline runs on when an arm has left: its later seeds are in no difference."""
    base = [0.1 * k for k in range(20)]
    alike = [value + 0.05 * (-1) ** k for k, value in enumerate(base)]  # nothing decides it: the race goes on
    scores = {"base": base, "short": [value - 0.5 - 0.01 * k for k, value in enumerate(base[:12])], "alike": alike}
    runs = [
        Trajectory(arm, seed, "finished", {"reward": Curve({"steps": [1.0]}, [value])})
        for arm, values in scores.items()
        for seed, value in enumerate(values)
    ]
    judgement = judge(Plan(metric="reward", baseline="base", seeds=tuple(range(20)), budget=1.0, race=True), runs)
    assert judgement is not None
    short, alike_row = (row for _, row in lab.Verdicts(judgement).table().iterrows())
    assert short["seeds"] < alike_row["seeds"]
    for row in (short, alike_row):
        assert row["mean"] - row["baseline_mean"] == pytest.approx(row["difference"])


def test_a_data_frame_and_curves_are_judged_like_a_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = [
        {"arm": arm, "seed": seed, "step": step, "accuracy": score + step / 1000}
        for arm, row in SCORES.items()
        for seed, score in row.items()
        for step in (0, 10, 20, 30)
    ]
    frame = pandas.DataFrame(rows)
    curves = {
        arm: {seed: ([0, 10, 20, 30], [score + step / 1000 for step in (0, 10, 20, 30)]) for seed, score in row.items()}
        for arm, row in SCORES.items()
    }
    by_frame, by_curves = (lab.judge(each, baseline="grpo", metric="accuracy", margin=0.01) for each in (frame, curves))
    assert by_frame.table().equals(by_curves.table())


def test_answers_say_how_fine_a_score_can_be() -> None:
    """4 questions x 1 answer: three of four and two of four at every seed; no seed differs, yet nothing is proved."""
    three, two = np.array([1.0, 1, 1, 0]), np.array([1.0, 1, 0, 0])
    verdicts = lab.judge(
        {"a": dict.fromkeys(range(4), two), "b": dict.fromkeys(range(4), three)}, baseline="a", margin=0.01
    )
    assert verdicts["b"].effect.mean_difference == pytest.approx(0.25)
    assert not any("--answers" in note for note in verdicts.notes)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("x", "'x' is no result"),
        (([0, 1], [0.5]), r"two lists of one length; got \[2\] and \[1\]"),
        (([1, 0], [0.5, 0.6]), "steps of a curve must grow"),
        (np.zeros((2, 2, 2)), r"shape \[2, 2, 2\]: give \[Q\]"),
        ([], r"shape \[0\]"),
    ],
)
def test_what_is_no_result_is_refused_with_its_place(result: object, message: str) -> None:
    with pytest.raises(GrpoLabError, match=f"arm 'b', seed 1: .*{message}"):
        lab.judge({"a": {1: 0.5}, "b": {1: result}}, baseline="a")


def test_notes_and_errors_speak_python() -> None:
    notes = lab.judge(SCORES, baseline="grpo").notes
    assert any("in the metric's unit (margin)." in note for note in notes)
    assert not any("--" in note for note in notes)
    failed = {"a": {0: 2.0, 1: 3.0}, "b": {0: float("nan"), 1: 2.5}}
    with pytest.raises(GrpoLabError, match="say with floor what a failed run scores"):
        lab.judge(failed, baseline="a", higher_is_better=False)
    verdicts = lab.judge(failed, baseline="a", higher_is_better=False, floor=9.0)
    assert verdicts.scores()["b"].tolist() == [9.0, 2.5]


@pytest.mark.parametrize("seed", ["x", 0.5, float("nan"), float("inf"), None])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(GrpoLabError, match=r"arm 'b': seed .* is no whole number"):
        lab.judge({"a": {0: 0.5, 1: 0.6}, "b": {seed: 0.5, 1: 0.6}}, baseline="a")


def test_answers_of_all_runs_are_to_the_same_questions() -> None:
    runs = {arm: {seed: np.arange(4) % 2 for seed in range(3)} for arm in "ab"}
    with pytest.raises(GrpoLabError, match="arm 'b', seed 1: answers 3 questions, but arm 'a', seed 0 has 4; give all"):
        lab.judge({**runs, "b": {**runs["b"], 1: np.ones(3)}}, baseline="a")
    failed = {**runs, "b": {**runs["b"], 1: np.full(3, np.nan)}}  # what failed has answered nothing
    assert lab.judge(failed, baseline="a").scores()["b"].tolist() == [0.5, 0, 0.5]


def test_one_seed_is_no_plural() -> None:
    verdicts = lab.judge({"a": {0: 0.5}, "b": {0: 0.6}}, baseline="a")
    assert any(": 1 seed without one is compatible" in note for note in verdicts.notes)


def test_seeds_are_taken_as_json_and_numpy_have_them() -> None:
    rows = ({kind(seed): score for seed, score in SCORES["mine"].items()} for kind in (str, float, np.int64))
    usual = lab.judge(SCORES, baseline="grpo", margin=0.01).table()
    for row in rows:
        assert lab.judge({**SCORES, "mine": row}, baseline="grpo", margin=0.01).table().equals(usual)


@pytest.mark.parametrize("measured", [None, [0.5], np.zeros((2, 3)), {"a": [0.5, 0.6], "b": {0: 0.5}}])
def test_results_come_by_arm_and_seed(measured: Any) -> None:
    with pytest.raises(GrpoLabError, match=r"give results (as \{arm|by seed)"):
        lab.judge(measured, baseline="a")


def test_arms_that_all_failed_are_one_message() -> None:
    with pytest.raises(GrpoLabError, match="all have failed; nothing is left to compare"):
        lab.judge({arm: dict.fromkeys(range(3), float("nan")) for arm in "ab"}, baseline="a")


def test_a_verdict_that_is_not_there_names_those_with_the_baseline() -> None:
    verdicts = lab.judge({**SCORES, "other": SCORES["grpo"]}, baseline="grpo", family="all")
    with pytest.raises(GrpoLabError, match=r"no verdict on 'x': known: mine, other$"):
        _ = verdicts["x"]


def test_a_data_frame_as_it_comes(tmp_path: Path) -> None:
    """The column of the metric is read; what is missing is no text; scores need no step; an index has columns too."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        [
            {"arm": arm, "seed": seed, "accuracy": x, "value": 0.0}
            for arm, row in SCORES.items()
            for seed, x in row.items()
        ]
    )
    usual = lab.judge(SCORES, baseline="grpo", metric="accuracy", margin=0.01).table()
    for each in (
        frame,
        frame.drop(columns="value").assign(step=10, status=None),
        frame.drop(columns="value").rename(columns={"accuracy": "value"}),
        frame.set_index(["arm", "seed"]),
        frame.set_index("seed"),
    ):
        judged = lab.judge(each, baseline="grpo", metric="accuracy", margin=0.01)
        assert judged.table().equals(usual)
    file = tmp_path / "table.csv"
    file.write_text(
        "arm,seed,step,value,status\na,0,1,.5,\na,1,1,.6,\nb,0,1,.6,\nb,1,1,,lost\na,2,1,.5,\nb,2,,,failed\n"
    )
    scores = lab.judge(pandas.read_csv(file), baseline="a", margin=0.1).scores()
    assert scores.to_dict() == {"a": {0: 0.5, 2: 0.5}, "b": {0: 0.6, 2: 0.0}}
    frame.loc[0, "arm"] = None
    with pytest.raises(GrpoLabError, match="line 1: arm is empty"):
        lab.judge(frame, baseline="grpo")


def test_nothing_and_a_baseline_that_is_not_there_are_refused() -> None:
    with pytest.raises(GrpoLabError, match="nothing to judge"):
        lab.judge({}, baseline="a")
    with pytest.raises(GrpoLabError, match="no arm 'grpp'"):
        lab.judge(SCORES, baseline="grpp")


def test_a_study_on_disk_as_tables() -> None:
    study, stored = lab.load_study(OLD / "study"), load_study(OLD / "study")
    scores = study.scores()
    assert scores.shape == (9, 4)
    first = scores.iloc[0]
    assert (first["arm"], first["seed"], first["status"]) == ("grpo", 0, "finished")
    assert first["score"] == stored.scores()["grpo"][0]
    curves = study.curves()
    assert list(curves.columns) == ["arm", "seed", "steps", "test/accuracy"]
    x, y = stored.curve("rloo", 1, "test/accuracy")
    mine = curves[(curves["arm"] == "rloo") & (curves["seed"] == 1)]
    assert (mine["steps"].tolist(), mine["test/accuracy"].tolist()) == (x.tolist(), y.tolist())
    questions, responses = study.questions(), study.responses()
    assert len(questions) == 9 * 4
    assert len(responses) == 9 * 4 * 3  # greedy, and two sampled
    sampled = responses[responses["sample"] >= 0]
    assert sampled["correct"].mean() == pytest.approx(questions["accuracy"].mean())
    configuration = study.configuration()
    assert configuration.loc["grpo.advantage"].fillna("").tolist() == ["", "@old_tree_median", ""]
    assert configuration.loc["train.steps", "grpo"] == "6"
    assert study["grpo", 0].metrics()["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert len(list(study)) == len(study) == 9
    with pytest.raises(GrpoLabError, match="no run of 'grpo' at seed 7"):
        _ = study["grpo", 7]
    with pytest.raises(GrpoLabError, match=r"a run is study\[ARM, SEED\], and no study\['grpo'\]"):
        _ = study["grpo"]  # type: ignore[index]
    assert "9 of 9 runs finished" in repr(study)


def test_a_run_on_disk_as_tables() -> None:
    run = lab.load_run(OLD / "study" / "median" / "seed=2")
    assert (run.arm, run.seed, run.status) == ("median", 2, "finished")
    assert run.evaluations()["step"].tolist() == [0, 2, 4, 6]
    assert set(run.rollouts().columns) >= {"step", "reward", "text", "advantage"}
    assert run.configuration()["adamw.learning_rate"] == "0.003"
    unfinished = lab.load_run(OLD / "interrupted" / "ppo" / "seed=5")
    assert unfinished.status == "interrupted"
    with pytest.raises(GrpoLabError, match="no trained model yet"):
        _ = unfinished.checkpoint
    for place in (OLD / "study", OLD / "nowhere", OLD / "study" / "grpo"):
        with pytest.raises(GrpoLabError, match="no run is there"):
            lab.load_run(place)


def test_verdicts_of_a_study_are_those_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    study = shutil.copytree(OLD / "study", tmp_path / "study")  # the command writes its report there
    assert main(["analyze", str(study), "--json"]) == 0
    judged = json.dumps(lab.load_study(study).judge().to_json())
    assert capsys.readouterr().out == f"{json.dumps(json.loads(judged), indent=1)}\n"


def test_advantages_and_losses_by_hand() -> None:
    """Rewards 1, 0 and 1, 1 in groups of two, lengths 1 and 2: Dr. GRPO's advantages are differences from the mean."""
    batch = lab.Batch.of([[1.0, 0.0], [1.0, 1.0]], lengths=[[1, 2], [1, 1]], max_tokens=4)
    expected = torch.tensor([[[0.5, 0.5], [-0.5, -0.5]], [[0.0, 0.0], [0.0, 0.0]]])
    assert torch.equal(lab.advantages("dr_grpo", batch), expected)
    assert torch.equal(lab.advantages(lab.variant("dr_grpo"), batch), expected)
    logps = torch.full((2, 2, 2), -1.0, requires_grad=True)
    loss = lab.loss("dr_grpo", batch, logps)
    loss.backward()  # type: ignore[no-untyped-call]
    # ratio 1: the loss of a token is -A, its weight 1 / (4 responses * 4 tokens at most)
    assert loss.item() == pytest.approx(-(0.5 - 0.5 - 0.5) / 16)
    assert logps.grad is not None
    assert logps.grad[0].tolist() == [[pytest.approx(-0.5 / 16), 0.0], [pytest.approx(0.5 / 16)] * 2]


def test_an_estimator_of_a_notebook_is_measured_and_weighed() -> None:
    @advantage
    def lab_test_mean(batch: Batch) -> torch.Tensor:
        """Reward minus the mean of its group."""
        return batch.rewards - batch.rewards.mean(1, keepdim=True)

    batch = Batch.of([[1.0, 0.0]])
    assert lab.advantages(lab_test_mean, batch).flatten().tolist() == [0.5, -0.5]
    lens = lab.lens([lab_test_mean, "rloo"], group_size=2, group_sizes=(2,), batches=50)
    table = lens.table()
    assert table["variant"].tolist() == ["lab_test_mean", "rloo"]
    assert np.isfinite(table["variance"]).all()
    assert len(lens.plot().axes) >= 4
    assert "rloo" in (lens._repr_html_() or "")
    assert set(lens.to_json()["variants"]) == {"lab_test_mean", "rloo"}


def test_an_older_and_a_perturbed_sampler_are_measured() -> None:
    older = lab.lens_off_policy(["rloo", lab.variant("grpo")], ages=(0, 4), group_size=2)
    table = older.table()
    assert table[["variant", "age"]].to_numpy().tolist() == [["rloo", 0], ["rloo", 4], ["grpo", 0], ["grpo", 4]]
    assert table["bias"][0] == pytest.approx(0, abs=1e-6)
    assert table["direction_bias"][1] > 0.1
    assert len(older.plot().axes) == 2
    assert "rloo" in (older._repr_html_() or "")
    assert set(older.to_json()["variants"]) == {"rloo", "grpo"}
    perturbed = lab.lens_off_policy("rloo", mismatches=(1e-3,), group_size=2).table()
    assert perturbed["nats_a_token"].tolist() == [pytest.approx(1e-3)]


def test_another_turn_is_measured() -> None:
    turns = lab.lens_turns(["rloo", "gae"], group_size=2)
    table = turns.table()
    assert table["variant"].unique().tolist() == ["rloo", "gae", "gae (values 0)"]
    assert table["turn_reward"].tolist()[:5] == [-0.4, -0.2, 0.0, 0.2, 0.4]
    assert table["push"].tolist() == pytest.approx(table["true_push"].tolist())
    assert table["angle"].max() < 1e-3
    assert len(turns.plot().axes) == 3
    assert "rloo" in (turns._repr_html_() or "")
    assert set(turns.to_json()["variants"]) == {"rloo", "gae", "gae (values 0)"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lab.variant("drgrpo"), "no variant 'drgrpo': did you mean dr_grpo"),
        (lambda: lab.variant("dapo", eps_hi=0.3), "variant 'dapo' has no setting 'eps_hi': did you mean eps_high"),
        (lambda: lab.advantages("nope", Batch.of([[1.0, 0.0]])), "unknown variant or advantage 'nope'"),
        (lambda: lab.loss("remax", Batch.of([[1.0, 0.0]]), torch.zeros(1, 2, 1)), "greedy_rewards"),
        (lambda: lab.loss("grpo", Batch.of([[1.0, 0.0]]), torch.zeros(2, 1)), r"logps have shape \[2, 1\]"),
        (lambda: LOOSE.loss("grpo", Batch.of([[1.0, 0.0]]), [[[0.0]]]), "logps must be a tensor, not list"),
        (
            lambda: LOOSE.loss("grpo", Batch.of([[1.0, 0.0]]), torch.zeros(1, 2, 1), torch.ones(1, 2)),
            r"advantages_ have .*2\]",
        ),
        (lambda: LOOSE.loss("grpo", [[1.0]], torch.zeros(1, 2, 1)), r"what Batch\.of\(rewards\) makes, not list"),
        (lambda: LOOSE.advantages("grpo", [[1.0, 0.0]]), r"what Batch\.of\(rewards\) makes, not list"),
        (lambda: Batch.of([[1.0, 0.0], [1.0]]), "rewards must be finite and "),
        (lambda: Batch.of([[1.0, 0.0], [1.0]]), "group 1 has 1, but group 0 has 2; give every prompt the same number"),
        (
            lambda: lab.advantages("grpo", Batch.of([[1.0], [0.0]])),
            "1 response to a prompt, but .*group_mean_std.* 2 up",
        ),
        (lambda: lab.loss("rloo", Batch.of([[1.0]]), torch.zeros(1, 1, 1)), "1 response to a prompt, .*leave_one_out"),
        (lambda: LOOSE.lens([]), "nothing to measure"),
        (lambda: LOOSE.lens_off_policy([]), "nothing to measure"),
        (lambda: lab.lens_off_policy("rloo", ages=()), "nothing to measure at: give ages"),
        (lambda: lab.lens_off_policy("rloo", ages=(-1,)), r"ages = \(-1,\): must be a list of whole numbers"),
        (lambda: lab.lens_off_policy("rloo", ages=(1,), mismatches=(0.1,)), "ages or mismatches, not both"),
        (lambda: lab.lens_off_policy("rloo", group_size=1), "raise group_size"),
        (lambda: LOOSE.lens_turns("rloo", turns=4), "turns = 4: must be 2 or 3"),
        (lambda: lab.lens_turns("remax"), "'remax' needs greedy_rewards"),
        (lambda: LOOSE.lens(3), "the method must be a registered advantage, not 3"),
        (lambda: LOOSE.train(seed="0"), "seed = '0': must be a whole number from 0 up"),
        (lambda: LOOSE.train(seed=0.0), r"seed = 0\.0: must be"),
        (lambda: LOOSE.train(seed=-1), "seed = -1: must be"),
        (lambda: LOOSE.compare("demo", seeds=2.0), r"seeds = 2\.0: must be a whole number from 0 up"),
        (lambda: LOOSE.compare("demo", seeds=[0, "1"]), r"seeds = \[0, '1'\]: must be"),
        (
            lambda: LOOSE.compare("demo", seeds=np.array([0, 0])),
            r"seeds = \[0, 0\]: must be at least one seed, all different",
        ),
        (lambda: LOOSE.compare("demo", seeds=np.int64(2), margin=np.float64(7)), r"compare\.margin = 7\.0: must be"),
        (lambda: LOOSE.compare("embedded", variants="grpo"), "one arm"),
        (lambda: lab.compare("demo", nope=3), r"compare\(\) has no keyword 'nope'"),
        (lambda: lab.compare("demmo"), "config file not found: demmo"),
        (lambda: lab.compare("embedded", variants=["grpo"]), "one arm"),
        (lambda: lab.compare("demo", launcher="slrum"), "--launcher slrum: unknown; did you mean slurm"),
        (lambda: lab.compare("demo", launcher_options={"adress": "auto"}), "no launcher has an option 'adress'"),
        (lambda: lab.compare("demo", launcher_options={"address": "auto"}), "--address is for --launcher ray"),
        (lambda: lab.compare("embedded", variants=[3]), "variants must be a registered variant"),
    ],
)
def test_mistakes_are_one_message(call: object, message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        call()  # type: ignore[operator]


def test_groups_of_one_are_for_estimators_that_say_so() -> None:
    alone = Batch.of([[1.0], [0.5]], greedy_rewards=[0.5, 0.5])
    assert lab.advantages("remax", alone).flatten().tolist() == [0.5, 0.0]
    assert lab.advantages("reinforce_pp", alone).shape == (2, 1, 1)
    given = torch.ones(2, 1, 1)  # advantages of one's own are not estimated
    assert lab.loss("grpo", alone, torch.zeros(2, 1, 1), given).item() == pytest.approx(-1)


def test_notebooks_show_text_where_pandas_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = shutil.copytree(OLD / "study", tmp_path / "study")
    for arm in ("median", "rloo"):
        shutil.rmtree(begun / arm)
    shown: list[Any] = [
        lab.judge(SCORES, baseline="grpo", margin=0.01),
        lab.load_study(OLD / "study"),
        lab.load_study(begun),
        lab.lens("rloo", group_size=2, group_sizes=(2,), batches=20),
    ]
    assert all("<table" in each._repr_html_() for each in shown)
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert [each._repr_html_() for each in shown] == [None] * 4  # what a notebook answers with the text
    assert repr(shown[-1]) == "<lens on rloo: .table(), .plot()>"
    with pytest.raises(GrpoLabError, match="tables in Python need pandas: pip install"):
        shown[0].table()


SCRIPT = """
import sys
from pathlib import Path
from typing import Any
from experiments import lab

settings = ["policy.model = %r", "train.steps = 3", "train.prompts = 2", "train.group_size = 2", "train.max_tokens = 4",
            "evaluation.every = 1", "evaluation.questions = 2"]
study = lab.compare("embedded", settings, variants=["grpo", "rloo"], name="small", seeds=2, progress=False)
print("finished", len(study))
run = lab.train("embedded", settings, seed=1, progress=False)
print(run.status, run.checkpoint.is_dir())
"""


@pytest.mark.slow
def test_a_script_without_a_guard_runs_a_study_and_a_run(tmp_path: Path, tiny_folder: Path) -> None:
    """A worker does not run the script again; the same call reads what is finished."""
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT % str(tiny_folder))
    for _ in range(2):
        done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stdout == "finished 4\nfinished True\n", done.stderr
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["analyze", str(tmp_path / "runs" / "small")]
    grpolab = [sys.executable, "-m", "experiments.cli.main", *command]
    again = subprocess.run(grpolab, capture_output=True, text=True, check=False, env=environment)
    assert again.returncode == 0, again.stderr


THREAD = """
import threading

def work():
    exec(%r)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.slow
def test_a_study_runs_in_any_thread(tmp_path: Path, tiny_folder: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(THREAD % (SCRIPT % str(tiny_folder)))
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "finished 4\nfinished True\n", done.stderr


OWN = '''
from core import advantage
from experiments import lab

@advantage
def own(batch):
    """Rewards."""
    return batch.rewards

arms = {"a": "train.variant = @grpo()", "b": ["train.variant = @grpo()", "grpo.advantage = @own"]}
lab.compare("embedded", arms=arms)
'''


@pytest.mark.slow
def test_parts_of_the_script_itself_are_refused(tmp_path: Path, tiny_folder: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(OWN)
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "advantage 'own' is defined in this notebook or script" in done.stderr
    assert "my_parts.py" in done.stderr
    assert not (tmp_path / "runs").exists()
