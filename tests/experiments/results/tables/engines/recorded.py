"""One small study as each library writes it: two arms, three seeds, evaluated at steps 0, 50 and 100."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from transformers.trainer_callback import TrainerState

STEPS: Final = (0, 50, 100)
CURVES: Final[Mapping[tuple[str, int], Sequence[float]]] = {
    ("grpo", 0): (0.30, 0.37, 0.41),
    ("grpo", 1): (0.31, 0.41, 0.45),
    ("grpo", 2): (0.28, 0.35, 0.39),
    ("rloo", 0): (0.30, 0.43, 0.50),
    ("rloo", 1): (0.31, 0.47, 0.53),
    ("rloo", 2): (0.28, 0.42, 0.47),
}
TIDY: Final[list[dict[str, Any]]] = [
    {"arm": arm, "seed": seed, "step": step, "value": value}
    for (arm, seed), curve in CURVES.items()
    for step, value in zip(STEPS, curve, strict=True)
]
"""The same as a tidy table."""


def runs() -> Iterator[tuple[str, int, list[tuple[int, float]]]]:
    """Arm, seed, and values by step."""
    for (arm, seed), curve in CURVES.items():
        yield arm, seed, list(zip(STEPS, curve, strict=True))


def write_state(file: Path, points: Sequence[tuple[int, float | None]], *, planned: int = 100, **more: Any) -> None:
    """What TRL's GRPOTrainer logs, written by transformers: a training line every ten steps, then the evaluation."""
    history: list[dict[str, Any]] = []
    for step, value in points:
        if step:
            history += [_training_line(each) for each in range(step - 40, step + 1, 10)]
        logged = {"eval_loss": 0.0, "eval_rewards/accuracy_reward/mean": value, "eval_num_tokens": 1000.0 * step}
        history.append({**logged, "epoch": step / 100, "step": step})
    state = TrainerState(
        epoch=1.0, global_step=points[-1][0], max_steps=planned, log_history=history, logging_steps=10, **more
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    state.save_to_json(str(file))


def _training_line(step: int) -> dict[str, Any]:
    return {
        "loss": 0.01,
        "grad_norm": 0.5,
        "learning_rate": 1e-6,
        "num_tokens": 1000.0 * step,
        "completions/mean_length": 90.0,
        "reward": 0.2,
        "rewards/accuracy_reward/mean": 0.2,
        "frac_reward_zero_std": 0.5,
        "step_time": 2.0,
        "epoch": step / 100,
        "step": step,
    }


def write_trl(folder: Path, name: str = "{arm}-s{seed}") -> None:
    """A run's folder for each, with two checkpoints."""
    for arm, seed, points in runs():
        run = folder / name.format(arm=arm, seed=seed)
        write_state(run / "checkpoint-50" / "trainer_state.json", points[:2])
        write_state(run / "checkpoint-100" / "trainer_state.json", points)


def write_verl(folder: Path, name: str = "{arm}_seed{seed}") -> None:
    """`<project>/<experiment>.jsonl`: a line for every step, the evaluation in that of its step."""
    folder.mkdir(parents=True, exist_ok=True)
    for arm, seed, points in runs():
        (folder / f"{name.format(arm=arm, seed=seed)}.jsonl").write_text(verl_lines(points))


def verl_lines(points: Sequence[tuple[int, float | None]]) -> str:
    """The lines of one run."""
    values = dict(points)
    lines = []
    for step in range(max(values) + 1):
        data: dict[str, Any] = {"val-core/gsm8k/acc/mean@1": values[step]} if step in values else {}
        if step:
            data |= {"critic/score/mean": 0.3, "perf/total_num_tokens": 700, "timing_s/step": 1.5, "training/epoch": 0}
        lines.append(json.dumps({"step": step, "data": data}, separators=(",", ":")))
    return "\n".join(lines) + "\n"


def write_answers(folder: Path, step: int, right: Sequence[int], **more: Any) -> None:
    """verl's `validation_data_dir/<step>.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "input": f"user\n{n} + 1?\nassistant\n",
            "output": str(n + each),
            "gts": str(n + 1),
            "score": float(each),
            "step": step,
            "reward": float(each),
            "acc": bool(each),
            "pred": str(n + each),
            "uid": f"{n}_0_0",
            **more,
        }
        for n, each in enumerate(right)
    ]
    (folder / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_prime(folder: Path, name: str = "{arm}-seed{seed}") -> None:
    """`metrics.jsonl` of prime-rl: several lines a step, and others keyed by time."""
    for arm, seed, points in runs():
        values, run = dict(points), folder / name.format(arm=arm, seed=seed)
        rows: list[dict[str, Any]] = []
        for step in range(101):
            at = 1.7e9 + step
            if step in values:
                rows.append({"step": step, "time": at, "eval/math500/avg@1": values[step], "producer": "orchestrator"})
            rows.append({"step": None, "time": at, "inference/running": 3.0, "producer": "inference"})
            progress = {"progress/total_tokens": 500 * step, "time/step": 3.0, "reward/all/mean": 0.4}
            rows.append({"step": step, "time": at, **progress, "producer": "orchestrator"})
            rows.append({"step": step, "time": at, "loss/mean": 0.1, "producer": "trainer"})
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_events(folder: Path, name: str = "{arm}_s{seed}") -> None:
    """TensorBoard's event files, one for each start of a run; OpenRLHF's names."""
    from torch.utils.tensorboard import SummaryWriter

    for arm, seed, points in runs():
        writer = SummaryWriter(str(folder / name.format(arm=arm, seed=seed)))
        for step, value in points:
            writer.add_scalar("eval/default_pass1", value, step)
            writer.add_scalar("train/policy_loss", 0.1, step)
        writer.add_text("config", "text is no metric")
        writer.close()


def write_trackio(file: Path, *, run_id: bool = True, **config: Any) -> None:
    """trackio's database, in the layout of version 0.43, or as before runs had ids."""
    own = "run_id TEXT NOT NULL, " if run_id else ""
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            f"CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, {own}timestamp TEXT NOT NULL, "
            "run_name TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL)"
        )
        database.execute(
            f"CREATE TABLE configs (id INTEGER PRIMARY KEY AUTOINCREMENT, {own}run_name TEXT NOT NULL, "
            "config TEXT NOT NULL, created_at TEXT NOT NULL)"
        )
        for arm, seed, points in runs():
            name, ids = f"{arm}-seed{seed}", [f"id-{arm}-{seed}"] * run_id
            marks = ", ".join("?" * (4 + run_id))
            settings = json.dumps({"_Username": None, "_Group": arm, **config})
            columns = f"{'run_id, ' * run_id}run_name, config, created_at"
            database.execute(
                f"INSERT INTO configs ({columns}) VALUES ({', '.join('?' * (3 + run_id))})",
                [*ids, name, settings, "2026-01-01"],
            )
            for call, (step, value) in enumerate(points):
                metrics = json.dumps({"train/global_step": step, "eval/accuracy": value, "train/epoch": 0.5})
                database.execute(
                    f"INSERT INTO metrics ({'run_id, ' * run_id}timestamp, run_name, step, metrics) VALUES ({marks})",
                    [*ids, "2026-01-01", name, call, metrics],
                )
