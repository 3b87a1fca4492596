"""A run refuses to be another one than the driver meant."""

from pathlib import Path

from core.parts.registry import config, config_text
from experiments.launchers.job import Job, mark_lost, run_and_report
from experiments.study.configs import CONFIGS
from experiments.study.identity import facts
from experiments.study.settings import Arm


def test_a_node_with_other_libraries_is_named_with_both_versions(tmp_path: Path) -> None:
    with config([CONFIGS / "embedded.gin"], []):
        job = Job(Arm("a", ()), 0, config_text(), str(tmp_path / "run"))
    identity = facts(job.config, job.arm, job.seed)["identity"]
    other = identity | {"library versions": identity["library versions"] | {"torch": "0.1"}}
    outcome, message = run_and_report(job, lambda _: None, other)
    assert outcome == "failed"
    assert message is not None
    assert "has another library versions than the driver" in message
    assert "'torch': '0.1'" in message
    assert not (tmp_path / "run").exists()


def test_what_the_machine_lost_is_not_held_against_the_method(tmp_path: Path) -> None:
    job = Job(Arm("a", ()), 0, "", str(tmp_path / "run"))
    assert mark_lost(job, "its node was lost") == ("failed", "its node was lost; give the same command again")
    assert job.store.manifest["failure"] == "infrastructure"
    job.store.update_manifest(status="finished")
    assert mark_lost(job, "its node was lost") == ("finished", None)


def test_a_process_that_left_by_itself_is_a_broken_run(tmp_path: Path) -> None:
    job = Job(Arm("a", ()), 0, "", str(tmp_path / "run"))
    assert mark_lost(job, "its process died (exit code 3)", 3) == ("broken", "its process died (exit code 3)")
    assert job.store.manifest["failure"] == "code"
