"""Wrote what lies beside this file, with the tree of November 2026: a study, a tuning, a run, and the same run stopped.

    cd tests/data/old_tree && python make.py

Kept to be read. What a later tree would write anew could not show that the old is still understood.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import core
from core.train import Interrupted
from experiments.cli import main
from experiments.launchers import local
from experiments.launchers.job import Job, run_job

HERE = Path(__file__).resolve().parent
EMBEDDED = Path(core.__file__).parent / "assets" / "embedded"


def save_model() -> None:
    """A one-layer Llama with wide random weights: its distributions are far from uniform."""
    torch.manual_seed(7)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=128,
        initializer_range=0.5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(HERE / "model")
    tokenizer.save_pretrained(HERE / "model")


def stop_after_two(step: Mapping[str, Any]) -> None:
    """What watches the run that is to be stopped."""
    if step["step"] == 2:
        raise Interrupted


def launch_here(
    jobs: Sequence[Job], workers: int, progress: Any, more: Callable[[], Sequence[Job]] = tuple
) -> dict[tuple[str, int], str]:
    """A launcher of this process alone."""
    for job in jobs:
        try:
            run_job(job, stop_after_two if "interrupted" in job.folder else lambda _: None)
        except Interrupted:
            print(f"{job.folder}: stopped")
    return {}


def write() -> None:
    """Write everything anew."""
    for name in ("model", "runs"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    save_model()
    local.launch = launch_here
    main(["compare", "-c", "study.gin", "--seeds", "3", "--out", "runs"])
    main(["tune", "-c", "study.gin", "--rates", "1e-3,1e-2", "--seeds", "2", "--out", "runs"])
    for name in ("whole", "interrupted"):
        main(["train", "-c", "run.gin", "--seed", "5", "--out", "runs", "--name", name])
    with (HERE / "verdict.json").open("w") as file, redirect_stdout(file):
        main(["analyze", "runs/study", "--json"])
    for name in ("study", "study-tune"):
        shutil.rmtree(HERE / "runs" / name / "figures", ignore_errors=True)
        (HERE / "runs" / name / "report.html").unlink(missing_ok=True)


if __name__ == "__main__":
    write()
