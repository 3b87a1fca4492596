"""Studies that grow: what may change, what was seen before, and runs that are used again."""

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gin
import pytest

from core import GrpoLabError
from core.parts.registry import REGISTRIES
from core.store.files import write_json
from experiments.cli.main import main
from experiments.launchers.job import Failures, Job, run_and_report
from experiments.launchers.progress import Progress
from experiments.results.history import chained
from experiments.results.stored_run import StudyError
from experiments.results.stored_study import load_study
from experiments.statistics.grown import Look, error_rate
from experiments.study.configs import CONFIGS
from experiments.study.declare import declare
from experiments.study.study import (
    Study,
    prepare_study,
)
from tests.experiments.report.studies import write_study

EMBEDDED = str(CONFIGS / "embedded.gin")
PAIR = "compare.variants = [@grpo, @dapo]"
FINALS = {"grpo": [0.50, 0.52, 0.54], "dapo": [0.54, 0.58, 0.56]}

ESTIMATOR = '''
from core import Batch, advantage

@advantage(axes={"baseline": "median of the group"})
def median_baseline(batch: Batch):
    """Reward minus the median of its group."""
    return batch.rewards - batch.rewards.quantile(0.5, dim=1, keepdim=True)
'''
TINY = """
include 'embedded.gin'
import grown_estimators
compare.name = 'tiny'
train.steps = 3
train.prompts = 2
train.group_size = 3
train.max_tokens = 12
evaluation.every = 1
evaluation.questions = 2
evaluation.split = 'test'
"""
GRPO, MEDIAN, RLOO = "'grpo': []", "'median': 'grpo.advantage = @median_baseline'", "'rloo': 'train.variant = @rloo()'"


def arms(*which: str) -> str:
    return f"compare.arms = {{{', '.join(which)}}}\n"


def stamps(folder: Path) -> dict[Path, int]:
    """When every result of every run was written."""
    return {file: file.stat().st_mtime_ns for file in folder.glob("*/seed=*/**/*.json*")}


def run_here(
    jobs: Sequence[Job], workers: int, progress: Progress, more: Callable[[], Sequence[Job]] = tuple
) -> Failures:
    """Every job in this process: starting others is dear, and what they do is tested elsewhere."""
    ends = {job.key: run_and_report(job, lambda _: None) for job in jobs}
    return {key: message or end for key, (end, message) in ends.items() if end != "finished"}


def forget(module: str) -> None:
    """Have a module of estimators imported anew, as another process would."""
    del sys.modules[module]
    gin.config._REGISTRY.pop(REGISTRIES["advantage"]._parts.pop("median_baseline").selector)
    importlib.invalidate_caches()


@pytest.mark.slow
def test_a_study_grows_from_3_to_5_to_9_seeds_and_by_an_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # an edit within a second would be taken for none
    monkeypatch.setattr("experiments.launchers.local.launch", run_here)
    estimators, config, folder = (tmp_path / name for name in ("grown_estimators.py", "tiny.gin", "out/tiny"))
    estimators.write_text(ESTIMATOR)
    config.write_text(TINY + arms(GRPO, MEDIAN))

    def compare(seeds: int, *more: str) -> str:
        main(["compare", "-c", "tiny.gin", "--seeds", str(seeds), "--out", "out", *more])
        output = capsys.readouterr()
        return " ".join((output.out + output.err).split())

    compare(3)
    first = stamps(folder)
    assert sum(file.name == "manifest.json" for file in first) == 6
    refused = compare(5)
    assert "declared differently (different: seeds). With --grow" in refused
    assert json.loads((folder / "study.json").read_text())["declaration"]["seeds"] == [0, 1, 2]

    estimators.write_text(ESTIMATOR.replace("    return", "    # a comment\n    return"))
    forget("grown_estimators")
    output = compare(5, "--grow")
    assert "Looked at after 3 and 5 seeds, each at 0.05: equal arms are called different" in output
    assert f"in {100 * error_rate((Look(3, 2, 0.05), Look(5, 2, 0.05))):.1f} % of such studies" in output
    assert "fewer than 3: alone they decide nothing" in output
    second = stamps(folder)
    assert first.items() <= second.items(), "a finished run was made again"

    config.write_text(TINY + arms(GRPO, MEDIAN, RLOO) + "rloo.kl_coef = 0.0\ncompare.margin = 0.05\n")
    output = compare(9, "--grow", "--json")
    assert second.items() <= stamps(folder).items()
    judged = json.loads(output[output.index("{") : output.rindex("}") + 1])
    grown = judged["grown"]
    assert [(look["seeds"], look["arms"]) for look in grown["looks"]] == [(3, 2), (5, 2), (9, 3)]
    assert grown["fresh"]["seeds"] == [5, 6, 7, 8]
    assert {c["arm"] for c in grown["fresh"]["comparisons"]} == {"median", "rloo"}
    assert any("3 seeds became 5" in note for note in judged["notes"])
    growth_note = next(note for note in judged["notes"] if "5 seeds became 9" in note)
    assert "after 10 runs (median vs grpo" in growth_note
    assert "rloo came in, and the family counts all 3 arms; the margin was 0.01 and is 0.05" in growth_note

    record = json.loads((folder / "study.json").read_text())
    assert [len(entry["declaration"]["seeds"]) for entry in record["history"]] == [3, 5]
    assert record["history"][0]["seen"]["finished"] == {"grpo": [0, 1, 2], "median": [0, 1, 2]}
    for file in ("report.html", "tables/verdicts.md"):
        assert "Looked at after 3 seeds of 2 arms, then 5 seeds of 2 arms" in (folder / file).read_text()


# what may change


def study(*bindings: str, seeds: tuple[int, ...] = (0, 1, 2)) -> Study:
    return prepare_study([EMBEDDED], bindings or (PAIR,), seeds)


@pytest.mark.parametrize(
    ("bindings", "seeds", "why"),
    [
        ((PAIR,), (0, 1), r"seeds \[0, 1, 2\] are declared: more can be added at the end"),
        ((PAIR,), (1, 0, 2, 3), "more can be added at the end"),
        (("compare.variants = [@grpo, @rloo]",), (0, 1, 2), "arm 'dapo' is declared and would be missing"),
        ((PAIR, "train.steps = 41"), (0, 1, 2, 3), "budget was 40 and would be 41"),
        ((PAIR, "train.prompts = 3"), (0, 1, 2, 3), "'grpo' would run differently.*train.prompts = 3"),
        ((PAIR, "dapo.eps_high = 0.3"), (0, 1, 2, 3), "'dapo' would run differently .*dapo.eps_high = 0.3"),
        ((PAIR, "evaluation.questions = 200"), (0, 1, 2, 3), "evaluation.questions = 200.*compare.reevaluate = 5"),
        ((PAIR, "evaluation.final_samples = 48"), (0, 1, 2, 3), "final_samples = 48.*compare.reevaluate = 5"),
        ((PAIR, "compare.metric = 'test/greedy_accuracy'"), (0, 1, 2), "metric was 'test/accuracy'"),
        ((PAIR, "compare.family = 'all'"), (0, 1, 2), "family was 'baseline'"),
        ((PAIR, "compare.failures = 'intersect'"), (0, 1, 2), "failures was 'worst'"),
        ((PAIR, "compare.looks = ((3, 0.01), (5, 0.04))"), (0, 1, 2, 3, 4), "looks must be declared before"),
        ((PAIR, "compare.race = True"), tuple(range(10)), "race was False"),
    ],
)
def test_what_would_change_what_was_seen_is_refused(
    tmp_path: Path, bindings: tuple[str, ...], seeds: tuple[int, ...], why: str
) -> None:
    declare(study(), tmp_path, "first")
    written = (tmp_path / "study.json").read_bytes()
    for grow in (False, True):
        with pytest.raises(GrpoLabError, match=rf"cannot grow into this one: .*{why}"):
            declare(study(*bindings, seeds=seeds), tmp_path, "second", grow=grow)
    assert (tmp_path / "study.json").read_bytes() == written


@pytest.mark.parametrize(
    ("bindings", "changed"),
    [
        ((PAIR, "compare.alpha = 0.01"), "alpha"),
        ((PAIR, "compare.margin = 0.02"), "margin"),
        ((PAIR, "compare.threshold = 0.5"), "threshold"),
        (("compare.variants = [@grpo, @dapo, @rloo]", "rloo.kl_coef = 0.01"), "arms"),
        (
            (
                PAIR,
                "claim.question = 'q'",
                "claim.source = 's'",
                "claim.predictions = ['dapo > grpo on test/accuracy by 0.01']",
            ),
            "claim",
        ),
    ],
)
def test_what_may_change_is_put_down_with_what_was_seen(
    tmp_path: Path, bindings: tuple[str, ...], changed: str
) -> None:
    declare(study(), tmp_path, "first")
    before = json.loads((tmp_path / "study.json").read_text())
    with pytest.raises(GrpoLabError, match=rf"different: .*{changed}.*With --grow"):
        declare(study(*bindings), tmp_path, "second")
    declare(study(*bindings), tmp_path, "second", grow=True)
    record = json.loads((tmp_path / "study.json").read_text())
    (entry,) = record["history"]
    assert {name: entry[name] for name in ("hash", "declaration", "command")} == {
        name: before[name] for name in ("hash", "declaration", "command")
    }
    assert entry["seen"]["finished"] == {"grpo": [], "dapo": []}
    assert load_study(tmp_path).plan.seen[0].seeds == 0
    declare(study(*bindings), tmp_path, "the same again", grow=True)  # nothing has changed: no further entry
    assert json.loads((tmp_path / "study.json").read_text()) == record


def test_a_study_of_an_earlier_version_grows_and_goes_on(tmp_path: Path) -> None:
    """Its declaration leaves out what there was not yet, and has no hash."""
    declare(study(), tmp_path, "first")
    record = json.loads((tmp_path / "study.json").read_text())
    for name in ("questions", "race", "looks", "threshold", "claim", "floor"):
        del record["declaration"][name]
    del record["hash"]
    write_json(tmp_path / "study.json", record)
    declare(study(), tmp_path, "the same")
    assert json.loads((tmp_path / "study.json").read_text()) == record
    declare(study(seeds=(0, 1, 2, 3)), tmp_path, "second", grow=True)
    grew = load_study(tmp_path)
    assert grew.seeds == (0, 1, 2, 3)
    assert grew.record["history"][0]["declaration"] == record["declaration"]


def test_a_race_and_declared_looks_grow_as_such(tmp_path: Path) -> None:
    with_looks = (PAIR, "compare.looks = ((3, 0.01), (5, 0.02))")
    declare(study(*with_looks, seeds=tuple(range(5))), tmp_path / "looks", "first")
    more = study(PAIR, "compare.looks = ((3, 0.01), (5, 0.02), (9, 0.02))", seeds=tuple(range(9)))
    declare(more, tmp_path / "looks", "second", grow=True)
    other = study(PAIR, "compare.looks = ((3, 0.02), (9, 0.03))", seeds=tuple(range(9)))
    with pytest.raises(GrpoLabError, match="more can be added at the end"):
        declare(other, tmp_path / "looks", "third", grow=True)
    raced = (PAIR, "compare.race = True")
    declare(study(*raced, seeds=tuple(range(10))), tmp_path / "race", "first")
    declare(study(*raced, seeds=tuple(range(20))), tmp_path / "race", "second", grow=True)


# what was seen


def grown(path: Path, **declared: Any) -> Path:
    """Six seeds of which three were seen before."""
    finals = {arm: [*scores, *scores] for arm, scores in FINALS.items()}
    whole = write_study(path, finals, **declared)
    record = dict(whole.record)
    before = {**record["declaration"], "seeds": [0, 1, 2], "arms": {arm: [] for arm in FINALS}}
    seen = {
        "when": "2026-01-02T03:04:05+00:00",
        "seeds": 3,
        "finished": {"grpo": [0, 1, 2], "dapo": [0, 1, 2]},
        "verdicts": [
            {
                "arm": "dapo",
                "baseline": "grpo",
                "n": 3,
                "verdict": "inconclusive",
                "mean_difference": 0.04,
                "adjusted_p": 0.0742,
            }
        ],
    }
    record["declaration"] = {**record["declaration"], "arms": {arm: [] for arm in FINALS}}
    record["history"] = [{"hash": chained(before, []), "declaration": before, "command": "c", "seen": seen}]
    record["hash"] = chained(record["declaration"], record["history"])
    write_json(path / "study.json", record)
    return path


def test_a_grown_study_reports_its_error_rate_and_the_verdict_of_the_fresh_seeds(tmp_path: Path) -> None:
    judgement = load_study(grown(tmp_path / "study")).judge()
    assert judgement is not None
    growth = judgement.grown
    assert growth is not None
    assert growth.fresh is not None
    assert growth.fresh.seeds == (3, 4, 5)
    assert growth.fresh.comparisons[0].adjusted_p == pytest.approx(0.0742, abs=5e-5)
    assert judgement.warnings[0] == growth.sentence
    assert growth.sentence.endswith(
        "The 3 seeds since the look before, alone, keep 0.05: dapo vs grpo inconclusive (+0.04, adjusted p = 0.0742)."
    )
    assert judgement.analysis.notes[0] == (
        "Grown on 2026-01-02, after 6 runs (dapo vs grpo inconclusive (+0.04, n = 3)): 3 seeds became 6. Hash of the "
        f"declaration before: {load_study(tmp_path / 'study').record['history'][0]['hash']}."
    )


@pytest.mark.parametrize("change", ["seen", "declaration", "order", "hash"])
def test_an_edited_history_is_noticed(tmp_path: Path, change: str) -> None:
    folder = grown(tmp_path / "study")
    record = json.loads((folder / "study.json").read_text())
    if change == "seen":
        record["history"][0]["seen"]["verdicts"] = []
    elif change == "declaration":
        record["history"][0]["declaration"]["alpha"] = 0.01
    elif change == "order":
        record["history"] = []
    else:
        record["history"][0]["hash"] = "0123456789abcdef"
    (folder / "study.json").write_text(json.dumps(record))
    with pytest.raises(StudyError, match="not the one that was hashed before the first run"):
        load_study(folder)


@pytest.mark.parametrize("record", [{}, {"declaration": 3}, {"declaration": {}, "hash": "x", "history": 3}])
def test_a_study_does_not_grow_from_what_is_no_declaration(tmp_path: Path, record: dict[str, Any]) -> None:
    write_json(tmp_path / "study.json", record)
    for grow in (False, True):
        with pytest.raises(GrpoLabError, match=r"study\.json"):
            declare(study(), tmp_path, "command", grow=grow)


@pytest.mark.parametrize("history", [3, [3], [{}], {"a": 1}, [{"declaration": {}, "hash": "x", "seen": 3}]])
def test_a_history_that_is_none_is_refused_in_words(tmp_path: Path, history: Any) -> None:
    folder = grown(tmp_path / "study")
    record = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(record | {"history": history}))
    with pytest.raises(StudyError, match=r"study.json: the (history|declaration)"):
        load_study(folder)
