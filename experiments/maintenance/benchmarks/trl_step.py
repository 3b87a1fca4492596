"""The peer of `step_time.py`: TRL's GRPOTrainer on the same model, prompts and sizes. Runs in TRL's own environment.

Prints one JSON line: seconds and processor seconds per step after the first, generated tokens per step, peak memory
in GiB.
"""

import argparse
import json
import resource
import tempfile
import time
from typing import Any


def main() -> None:
    """Train for a few steps and time all but the first."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOTrainer

    options = _options()
    torch.set_num_threads(options.threads)
    # one step takes as many questions as there are
    questions = json.loads(options.questions)
    rows = [{"prompt": q if options.plain else [{"role": "user", "content": q}], "answer": a} for q, a in questions]

    def right(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
        """1 where the answer occurs in the response."""
        texts = completions if options.plain else [response[0]["content"] for response in completions]
        return [float(target in text) for text, target in zip(texts, answer, strict=True)]

    class Clock(TrainerCallback):
        """When each step ended."""

        ends: list[float] = []  # noqa: RUF012 - one trainer, one list
        cpu: list[float] = []  # noqa: RUF012

        def on_step_end(self, *_: Any, **__: Any) -> None:
            """Note the time."""
            self.ends.append(time.perf_counter())
            self.cpu.append(time.process_time())

    with tempfile.TemporaryDirectory() as out:
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype)),
            reward_funcs=right,
            args=_config(options, len(rows), out),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(options.model),
            callbacks=[Clock()],
        )
        trainer.train()
    lengths = [float(log["completions/mean_length"]) for log in trainer.state.log_history if "reward" in log]
    ends, cpu = Clock.ends, Clock.cpu
    print(
        json.dumps(
            {
                "seconds": (ends[-1] - ends[0]) / (len(ends) - 1),
                "cpu_seconds": (cpu[-1] - cpu[0]) / (len(cpu) - 1),
                "tokens": sum(lengths[1:]) / len(lengths[1:]) * len(rows) * options.group,
                "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            }
        )
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("model", "dtype", "questions"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("steps", "group", "new-tokens", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--plain", action="store_true", help="questions are texts, not messages")
    return parser.parse_args()


def _config(options: argparse.Namespace, questions: int, out: str) -> Any:
    """The trainer's settings: all responses of a step in one batch, without a KL penalty."""
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=out,
        per_device_train_batch_size=questions * options.group,
        num_generations=options.group,
        max_completion_length=options.new_tokens,
        learning_rate=1e-5,
        beta=0.0,
        max_steps=options.steps,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=False,
        loss_type="grpo",
        gradient_checkpointing=False,
        disable_tqdm=True,
    )


if __name__ == "__main__":
    main()
