"""Further questions to the models that finished runs ended with, and studies whose verdict rests on them."""

import json
import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import core.parts.registry as registry
from core import GrpoLabError
from core.loop.evaluation import evaluate, reevaluate, reevaluated
from core.loop.run_state import RunState
from core.loop.train import run as train
from core.model.policy import Policy, load_policy
from core.store.integrity import checksum_differs
from core.store.run_folder import RunStore
from experiments.cli.main import main
from experiments.launchers.reevaluation import load_final
from experiments.results.stored_study import load_study
from experiments.statistics import Curve, Plan, Trajectory, judge
from experiments.statistics.grown import Look, bound, error_rate
from experiments.study.configs import (
    CONFIGS,
    build,
)
from experiments.study.study import prepare_study
from tests.experiments.study.test_growth import run_here

SUITE = "test-reevaluated"
TINY = """
include 'embedded.gin'
compare.name = 'tiny'
compare.variants = [@grpo, @rloo]
rloo.kl_coef = 0.0
train.steps = 3
train.prompts = 2
train.group_size = 3
train.max_tokens = 12
evaluation.every = 1
evaluation.questions = 2
evaluation.split = 'test'
"""
Compare = Callable[..., tuple[int, str]]


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Compare:
    """`grpolab compare` on the tiny study in `out/tiny`, its runs in this process; the exit code and what was said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.launchers.local.launch", run_here)
    Path("tiny.gin").write_text(TINY)

    def run(*more: str, seeds: int = 3) -> tuple[int, str]:
        code = main(["compare", "-c", "tiny.gin", "--seeds", str(seeds), "--out", "out", *more])
        output = capsys.readouterr()
        return code, " ".join((output.out + output.err).split())

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The tiny study, finished, declared with so many further questions: its folder, each made once."""

    @cache
    def make(number: int) -> Path:
        folder = tmp_path_factory.mktemp("finished")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr("experiments.launchers.local.launch", run_here)
            Path("tiny.gin").write_text(TINY)
            declared = further(number)[:2] if number else ()
            assert main(["compare", "-c", "tiny.gin", "--seeds", "3", "--out", "out", *declared]) == 0
        return folder / "out"

    return make


def further(number: int) -> tuple[str, ...]:
    return "-b", f"compare.reevaluate = {number}", "--grow"


def answers(seed: int = 0, arm: str = "grpo") -> Path:
    return Path(f"out/tiny/{arm}/seed={seed}/eval/{SUITE}/step=000003.json")


def others(folder: Path) -> dict[Path, bytes]:
    """What re-evaluation may not touch: every run's files but the manifest and the answers."""
    files = (f for f in folder.glob("*/seed=*/**/*") if f.is_file() and f.name not in ("manifest.json", ".lock"))
    return {file: file.read_bytes() for file in files if SUITE not in file.parts}


def read(path: Path) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(path.read_text())
    return parsed


def test_the_final_model_answers_as_at_its_last_evaluation(compare: Compare, finished: Callable[[int], Path]) -> None:
    shutil.copytree(finished(0), "out")
    with registry.config(["tiny.gin"], ["train.variant = @rloo()"], include_from=[CONFIGS]):
        recipe = build("train")
    policy = load_final(recipe, Path("out/tiny/rloo/seed=1/checkpoint"))
    (again,) = evaluate(RunState(recipe, 1, policy), 3)
    assert again["questions"] == read(Path("out/tiny/rloo/seed=1/eval/test/step=000003.json"))["questions"]


@pytest.mark.slow
def test_a_finished_study_grows_by_further_questions(compare: Compare, finished: Callable[[int], Path]) -> None:
    folder = Path("out/tiny")
    shutil.copytree(finished(0), "out")
    before, first = others(folder), read(folder / "study.json")
    manifests = {file: read(file) for file in folder.glob("*/seed=*/manifest.json")}
    assert len(manifests) == 6

    assert "5 further questions" not in compare(*further(5)[:2])[1], "without --grow nothing is asked"
    assert read(folder / "study.json") == first
    dry_run = compare(*further(5), "--dry-run", "--no-probe")[1]
    assert "30 further questions in all, to 6 final models x 2 samples and once greedily" in dry_run
    code, output = compare(*further(5), "--verbose")
    assert code == 0
    assert "[6/6] rloo seed 2: test-reevaluated/accuracy" in output

    # nothing of the runs has changed but that their manifests list the answers
    assert others(folder) == before
    for file, was in manifests.items():
        now = read(file)
        assert not checksum_differs(now)
        assert now["files"].items() >= was["files"].items()
        assert now["files"].keys() - was["files"].keys() == {f"eval/{SUITE}/step=000003.json"}
        apart = {"files", "seal"}
        assert {k: v for k, v in now.items() if k not in apart} == {k: v for k, v in was.items() if k not in apart}

    # the score is the share of right answers in the file, to questions that nobody had been asked
    study = load_study(folder)
    assert study.plan.metric == f"{SUITE}/accuracy"
    scores = study.scores()
    for arm in ("grpo", "rloo"):
        for seed in range(3):
            stored = read(answers(seed, arm))
            assert [question["index"] for question in stored["questions"]] == [2, 3, 4, 5, 6]
            right = [sample["correct"] for question in stored["questions"] for sample in question["samples"]]
            assert len(right) == 10
            assert scores[arm][seed] == pytest.approx(statistics.fmean(right), abs=1e-7)
            lines = (folder / arm / f"seed={seed}/metrics.jsonl").read_text().splitlines()
            assert stored["total_sampled_tokens"] == json.loads(lines[-1])["total_sampled_tokens"]
    table = (folder / "tables/verdicts.md").read_text()
    assert f"{100 * statistics.fmean(scores['grpo'].values()):.1f}" in table

    # and the history tells it
    record = read(folder / "study.json")
    assert record["history"][0]["declaration"] == first["declaration"]
    assert "reevaluate" not in first["declaration"]
    assert record["declaration"]["reevaluate"] == 5
    assert "the final models were asked 5 further questions, on which alone the verdict rests since then" in output
    assert "Looked at after 3 seeds by their evaluations, then 3 seeds by 5 further questions, each at 0.05" in output
    assert "in at most 10.0 % of such studies" in output
    page = (folder / "report.html").read_text()
    assert "it rests on what every final model answered afterwards, to 5 further questions" in page
    assert "Held-out accuracy (further questions), not judged" not in page

    # the same command again asks nothing; more questions leave the first answers as they are
    smaller = read(answers())
    assert "[1/" not in compare(*further(5))[1]
    code, output = compare(*further(8), "--verbose")
    assert code == 0
    assert "5 further questions to the final models became 8" in output
    larger = read(answers())
    assert larger["questions"][:5] == smaller["questions"]
    assert [question["index"] for question in larger["questions"]] == list(range(2, 10))
    assert others(folder) == before

    # more seeds are trained and asked
    code, output = compare("-b", "compare.reevaluate = 8", "--grow", seeds=4)
    assert code == 0
    assert "[2/2] rloo seed 3: test-reevaluated/accuracy" in output
    assert sorted(load_study(folder).scores()["grpo"]) == [0, 1, 2, 3]

    # and there is no way back
    for back in (further(7), ("--grow",), ("-b", "evaluation.questions = 4", "--grow")):
        code, output = compare(*back, seeds=4)
        assert code == 2
        assert "8 further questions are declared (compare.reevaluate): their answers are part of the verdict" in output


def test_declared_at_first_it_is_asked_after_the_runs_and_goes_on_where_it_was_stopped(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, stored = Path("out/tiny"), RunStore.add_reevaluation
    folders: list[Path] = []

    def stop_at_the_fourth(store: RunStore, record: Any) -> None:
        if len(folders) == 3:
            raise KeyboardInterrupt
        folders.append(store.folder)
        stored(store, record)

    monkeypatch.setattr(RunStore, "add_reevaluation", stop_at_the_fourth)
    declared = ("-b", "compare.reevaluate = 4")
    code, output = compare(*declared)
    assert (code, len(folders)) == (130, 3)
    assert "the same command goes on from here" in output
    half = load_study(folder)
    assert [run.status for run in half.trajectories].count("pending") == 3
    assert half.judge() is not None
    main(["report", str(folder)])

    monkeypatch.setattr(RunStore, "add_reevaluation", stored)
    before = {file: file.stat().st_mtime_ns for file in folder.glob(f"*/seed=*/eval/{SUITE}/*")}
    code, output = compare(*declared)
    assert code == 0
    assert "[3/3]" in output
    assert before.items() <= {file: file.stat().st_mtime_ns for file in folder.glob(f"*/*/eval/{SUITE}/*")}.items()
    assert "history" not in read(folder / "study.json")
    assert not any(note.startswith("Looked at") for note in load_study(folder).judge().warnings)  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("writes", [1, 2, 3])
def test_a_kill_between_any_two_writes_leaves_a_whole_run_that_is_asked_again(
    compare: Compare, finished: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Raised from 3 to 5 questions: the manifest forgets the answers, they are written, the manifest lists them."""
    import core.store.files as module

    shutil.copytree(finished(3), "out")
    write, done = module.write_text, [0]
    before = read(answers())
    files = others(Path("out/tiny"))

    class KilledError(BaseException):
        """Nothing that the command would answer to."""

    def killed(path: Path, text: str) -> None:
        if "seed=" in str(path):
            done[0] += 1
            if done[0] == writes:
                raise KilledError
        write(path, text)

    monkeypatch.setattr(module, "write_text", killed)
    with pytest.raises(KilledError):
        compare(*further(5))
    monkeypatch.setattr(module, "write_text", write)

    study = load_study(Path("out/tiny"))  # no damage
    assert {run.status for run in study.runs} == {"finished"}
    code, output = compare(*further(5))
    assert code == 0
    assert "made again" not in output
    after = read(answers())
    assert after["questions"][:3] == before["questions"]
    assert len(after["questions"]) == 5
    assert others(Path("out/tiny")) == files


def test_what_was_answered_is_guarded_like_any_result(compare: Compare, finished: Callable[[int], Path]) -> None:
    shutil.copytree(finished(3), "out")
    answers().write_text(answers().read_text().replace('"correct": false', '"correct": true '))
    code, output = compare(*further(3)[:2])
    assert code == 0
    assert "altered" in output
    assert "this run is made again" in output


def test_a_model_that_is_gone_is_named_before_the_study_is_declared_anew(
    compare: Compare, finished: Callable[[int], Path]
) -> None:
    shutil.copytree(finished(0), "out")
    declared = Path("out/tiny/study.json").read_bytes()
    shutil.rmtree("out/tiny/rloo/seed=1/checkpoint")
    code, output = compare(*further(3))
    assert code == 2
    assert "rloo seed 1 has finished, but its model is not in" in output
    assert "the same command trains this run again" in output
    assert Path("out/tiny/study.json").read_bytes() == declared
    assert not list(Path("out").glob(f"**/{SUITE}"))
    shutil.rmtree("out/tiny/rloo/seed=1")
    assert compare(*further(3))[0] == 0


def test_the_models_of_the_last_evaluations_are_kept_and_asked(
    compare: Compare, finished: Callable[[int], Path]
) -> None:
    """Evaluations at steps 1, 2 and 3: the first two models lie beside the final one."""
    shutil.copytree(finished(0), "out")
    folder = Path("out/tiny")
    before = others(folder)
    kept = sorted(file.name for file in (folder / "rloo/seed=1/checkpoint/models").iterdir())
    assert kept == ["step=000001.safetensors", "step=000002.safetensors"]
    assert not (folder / "rloo/seed=1/models").exists()
    listed = read(folder / "rloo/seed=1/manifest.json")["files"]
    assert all(f"checkpoint/models/{name}" in listed for name in kept)

    three = ("-b", "compare.reevaluate_models = 3")
    dry_run = compare(*three, *further(4), "--dry-run", "--no-probe")[1]
    assert "72 further questions in all, to the last 3 evaluations' models of 6 runs x 2 samples" in dry_run
    code, output = compare(*three, *further(4), "--verbose")
    assert code == 0, output
    assert "(4 further questions to its last 3 evaluations' models)" in output
    assert "the models of each run's last 3 evaluations were asked 4 further questions" in output
    assert "its last 3 evaluations' models on 4 further questions, asked after training" in output
    assert others(folder) == before
    study = load_study(folder)
    files = [folder / f"rloo/seed=1/eval/{SUITE}/step={step:06d}.json" for step in (1, 2, 3)]
    accuracies = [read(file)["summary"]["accuracy"] for file in files]
    assert study.scores()["rloo"][1] == pytest.approx(statistics.fmean(accuracies))
    page = (folder / "report.html").read_text()
    assert "the models of the last 3 answered afterwards, to 4 further questions" in page

    # the last model's answers are those that it gives alone; each of the others has noise of its own
    with registry.config(["tiny.gin"], ["train.variant = @rloo()"], include_from=[CONFIGS]):
        recipe = build("train")
    alone = RunState(recipe, 1, load_final(recipe, folder / "rloo/seed=1/checkpoint"))
    assert reevaluate(alone, 3, "test", 4)["questions"] == read(files[2])["questions"]
    alone.policy.load_state_dict(load_file(folder / f"rloo/seed=1/checkpoint/models/{kept[0]}"))
    assert reevaluate(alone, 1, "test", 4, earlier=True)["questions"] == read(files[0])["questions"]
    assert reevaluate(alone, 1, "test", 4)["questions"] != read(files[0])["questions"]

    # asked again nothing happens; more questions leave the first answers, and fewer models there cannot be
    assert "[1/" not in compare(*three, *further(4))[1]
    first = [read(file)["questions"] for file in files]
    code, output = compare(*three, *further(6))
    assert code == 0, output
    assert [read(file)["questions"][:4] for file in files] == first
    code, output = compare(*further(6))
    assert code == 2
    assert "3 of each run's models were asked further questions (compare.reevaluate_models)" in output


def test_models_that_were_not_kept_are_named_before_the_study_is_declared_anew(
    compare: Compare, finished: Callable[[int], Path]
) -> None:
    three = ("-b", "compare.reevaluate_models = 3", "-b", "compare.reevaluate = 4")
    code, output = compare(*three, "-b", "evaluation.keep_models = False")
    assert code == 2
    assert "models of earlier evaluations are kept where runs end after train.steps" in output
    assert "compare.reevaluate_models = 3: nothing is asked" in compare(*three[:2])[1]
    shutil.copytree(finished(0), "out")
    declared = Path("out/tiny/study.json").read_bytes()
    shutil.rmtree("out/tiny/rloo/seed=1/checkpoint/models")
    code, output = compare(*three, "--grow")
    assert code == 2
    assert "rloo seed 1 has finished, but its model of step 1 is not in" in output
    assert Path("out/tiny/study.json").read_bytes() == declared
    # the final model is whole without them, and not with one that was altered
    assert compare(*further(2))[0] == 0
    altered = Path("out/tiny/rloo/seed=0/checkpoint/models/step=000001.safetensors")
    altered.write_bytes(altered.read_bytes()[:-1])
    code, output = compare(*further(3))
    assert code == 2
    assert "step=000001.safetensors" in output


def test_large_models_are_kept_where_they_are_asked_for(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import core.loop.resume
    from experiments.launchers import reevaluation

    def kept(*bindings: str) -> int:
        with registry.config([str(CONFIGS / "embedded.gin")], [*shared, *bindings]):
            recipe = build("train")
        for module in (core.loop.resume, reevaluation):
            monkeypatch.setattr(module, "SMALL_MODEL", 1)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        train(recipe, 0, RunStore(folder), facts={"identity": {}}, watch=lambda _: None)
        number = len(list(folder.glob("checkpoint/models/*")))
        assert reevaluation._keeps_models(recipe) == bool(number)
        return number

    shared = [f"policy.model = '{tiny_folder}'", "train.variant = @grpo()", "train.steps = 3", "train.prompts = 2"]
    shared += ["train.group_size = 2", "train.max_tokens = 4", "evaluation.every = 1", "evaluation.questions = 1"]
    assert kept() == 0
    assert kept("evaluation.keep_models = True") == 2


def test_questions_that_do_not_fit_or_are_not_there_are_refused_before_anything_runs(
    compare: Compare, tmp_path: Path
) -> None:
    rows = [{"question": f"{n}+1=", "answer": str(n + 1)} for n in range(200)]
    train, test = rows[:150], rows[150:]
    test[:] = [{**row, "question": row["question"] if n < 30 else "9+" * 400} for n, row in enumerate(test[:31])]
    for name, split in (("train", train), ("test", test)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in split))
    own = (
        "-b",
        "train.task = @files()",
        "-b",
        "files.path = {'train': 'train.jsonl', 'test': 'test.jsonl'}",
        "-b",
        "files.template = 'plain'",
    )
    code, output = compare(*own, "-b", "compare.reevaluate = 30")
    assert code == 2
    assert "'test' has 31 questions, and evaluations ask 2 of them (evaluation.questions): give at most 29" in output
    code, output = compare(*own, "-b", "compare.reevaluate = 29", "-b", "evaluation.seed = 1")
    assert code == 2
    assert "further question" in output
    assert "has 800 tokens" in output or "has 801 tokens" in output
    assert not Path("out/tiny/grpo").exists()


@pytest.mark.parametrize(
    ("binding", "why"),
    [
        ("compare.race = True", "no compare.race and no compare.looks"),
        ("compare.looks = ((5, 0.02), (10, 0.03))", "no compare.race and no compare.looks"),
        ("compare.scalar = 'auc'", r"takes compare\.scalar = 'final'"),
        ("compare.reevaluate = 0", r"compare\.reevaluate = 0: must be .*whole number"),
        ("compare.reevaluate = 2.5", r"compare\.reevaluate = 2\.5: must be .*whole number"),
    ],
)
def test_what_it_does_not_go_with(binding: str, why: str) -> None:
    more = [] if "reevaluate" in binding else ["compare.reevaluate = 8"]
    with pytest.raises(GrpoLabError, match=why):
        prepare_study([str(CONFIGS / "embedded.gin")], ["compare.variants = [@grpo, @rloo]", *more, binding], range(10))


def test_off_it_is_no_part_of_a_declaration() -> None:
    declared = prepare_study([str(CONFIGS / "embedded.gin")], ["compare.variants = [@grpo, @rloo]"], [0]).declaration
    assert "reevaluate" not in declared


@pytest.mark.parametrize(
    "bindings",
    [
        # a run ends with the step that reaches its seconds, beyond them: its final model is what they bought
        (
            "train.seconds_budget = 1e-6",
            "compare.threshold = 0.5",
            "claim.question = 'q'",
            "claim.source = 's'",
            "claim.predictions = ['rloo > grpo on test/pass_at_k by 0.01']",
        ),
        ("train.token_budget = 100", "compare.questions = 'population'", "compare.failures = 'intersect'"),
    ],
)
def test_every_kind_of_study_can_rest_on_it(compare: Compare, bindings: tuple[str, ...]) -> None:
    code, output = compare(*(word for each in (*bindings, "compare.reevaluate = 3") for word in ("-b", each)))
    assert code == 0, output
    study = load_study(Path("out/tiny"))
    judgement = study.judge()
    assert judgement is not None
    assert [*judgement.axes] == [study.plan.axis], "a final model cannot be had at equal amounts of something else"
    for run in study.runs:
        (last,) = [row for row in run.evals if row["split"] == SUITE]
        assert study.scores()[run.arm][run.seed] == last["summary"]["accuracy"]
    if judgement.plan.predictions:
        assert "on test-reevaluated/pass_at_k by" not in output
        assert judgement.plan.predictions[0].metric == f"{SUITE}/pass_at_k"
        assert judgement.claim is not None
    assert "final model on 3 further questions, asked after training" in output


def test_how_a_run_went_and_a_failed_ones_score_are_those_of_its_evaluations() -> None:
    """dapo rose to 0.8 and fell to 0.2: it collapsed, whatever its final model answers afterwards."""
    steps = {"steps": [0, 1, 2, 3]}
    falls, rises = (Curve(steps, values, [1000] * 4) for values in ([0.1, 0.8, 0.5, 0.2], [0.1, 0.4, 0.5, 0.6]))
    ends = {"dapo": [0.25, 0.26, 0.27], "grpo": [0.61, 0.62, 0.63]}
    runs = [
        Trajectory(
            arm,
            seed,
            "finished",
            {"test/accuracy": falls if arm == "dapo" else rises, f"{SUITE}/accuracy": Curve({"steps": [3]}, [value])},
        )
        for arm, values in ends.items()
        for seed, value in enumerate(values)
    ]
    runs[0] = Trajectory("dapo", 0, "failed", {"test/accuracy": Curve({"steps": [0, 1]}, [0.1, 0.2])})
    plan = Plan(f"{SUITE}/accuracy", "grpo", (0, 1, 2), budget=3, floor=0.5, further=64, followed="test/accuracy")
    judgement = judge(plan, runs)
    assert judgement is not None
    (dapo,) = [each for each in judgement.analysis.arms if each.arm == "dapo"]
    assert dapo.scores == (0.1, 0.26, 0.27), "the failed run has its score before training, which is below the floor"
    assert {each.arm: each.collapsed for each in judgement.outcomes} == {"dapo": 2, "grpo": 0}


# the answers themselves


@pytest.fixture
def run(tiny: Policy) -> RunState:
    bindings = ["train.max_tokens = 8", "evaluation.questions = 3", "evaluation.samples = 2", "train.variant = @grpo()"]
    with registry.config([str(CONFIGS / "embedded.gin")], bindings):
        recipe = build("train")
    return RunState(recipe, 5, tiny, sampled_tokens=77)


def test_fewer_questions_are_the_first_of_more(run: RunState) -> None:
    blocks: list[int] = []
    whole = reevaluate(run, 9, "test", 8, answered=blocks.append)
    assert blocks == [3, 3, 2]
    assert run.sampled_tokens == whole["total_sampled_tokens"] == 77
    for number in (1, 3, 4, 6):
        part = reevaluate(run, 9, "test", number)
        assert part["questions"] == whole["questions"][:number]
        went_on = reevaluate(run, 9, "test", 8, before=part)
        assert went_on["questions"] == whole["questions"]
        ours, theirs = dict(went_on["summary"]), dict(whole["summary"])
        assert ours.pop("entropy") == pytest.approx(theirs.pop("entropy"), rel=1e-6)
        assert ours == theirs, "equal answers are an equal score to the last bit"


def test_noise_goes_by_seed_and_is_not_that_of_evaluations(run: RunState) -> None:
    other = RunState(run.recipe, 6, run.policy)
    first, second = (reevaluate(each, 9, "test", 6)["questions"] for each in (run, other))
    assert [q["prompt"] for q in first] == [q["prompt"] for q in second]
    assert [q["greedy"] for q in first] == [q["greedy"] for q in second]
    assert [q["samples"] for q in first] != [q["samples"] for q in second]
    # the step is no part of it: the model alone is asked
    assert reevaluate(run, 4, "test", 6)["questions"] == first


def test_a_number_that_was_measured_nowhere_stays_unknown(run: RunState) -> None:
    part = reevaluate(run, 9, "test", 2)
    none_right = replace(run, recipe=replace(run.recipe, task=_Unanswerable(run.recipe.task)))
    first = reevaluate(none_right, 9, "test", 2)
    assert first["summary"]["length_correct"] is None
    both = reevaluate(none_right, 9, "test", 4, before=first)
    assert both["summary"]["length_correct"] is None
    assert both["summary"]["accuracy"] == 0
    assert part["summary"]["length"] == first["summary"]["length"]


class _Unanswerable:
    """A task whose answers nobody can give."""

    def __init__(self, task: Any) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def problem(self, split: str, seed: int, index: int) -> Any:
        return replace(self._task.problem(split, seed, index), answer="no answer")


@pytest.mark.parametrize(("dtype", "rank"), [("float32", 0), ("bfloat16", 0), ("bfloat16", 2)])
def test_the_model_that_is_asked_is_the_one_that_was_trained(
    tiny_folder: Path, tmp_path: Path, dtype: str, rank: int
) -> None:
    bindings = [
        "train.variant = @grpo()",
        f"policy.model = {str(tiny_folder)!r}",
        f"policy.dtype = '{dtype}'",
        f"policy.lora_rank = {rank}",
    ]
    with registry.config([str(CONFIGS / "embedded.gin")], bindings):
        recipe = build("train")
    trained = load_policy(recipe.policy)
    torch.manual_seed(0)
    with torch.no_grad():
        for _, weight in trained.trained():
            weight.add_(torch.randn_like(weight), alpha=0.01)
    trained.save(tmp_path / "checkpoint")
    loaded = load_final(recipe, tmp_path / "checkpoint")
    ours, theirs = (dict(policy.model.named_parameters()) for policy in (trained, loaded))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_names() -> None:
    assert reevaluated("test") == SUITE
    assert reevaluated("test/pass_at_k") == "test-reevaluated/pass_at_k"


# the error rate


def test_looks_at_other_answers_add_up() -> None:
    five, nine = Look(5, 2, 0.05), Look(9, 2, 0.05)
    assert bound([five, nine]) == error_rate((five, nine))
    assert bound([five, replace(five, further=512)]) == pytest.approx(0.1)
    assert bound([five, nine, replace(nine, further=512, alpha=0.01)]) == error_rate((five, nine)) + 0.01
    assert bound([replace(five, alpha=0.4, further=n) for n in range(3)]) == 1.0
