"""The peer of `step_time.py` and `verdict_cost.py`: TRL's GRPOTrainer on the same model, prompts and sizes.

Runs in TRL's own environment, with what is measured as JSON on standard input. Prints one JSON line: seconds and
processor seconds per step after the first, generated tokens per step, peak memory in GiB; and the processor seconds of
the whole process by phase: start-up, imports and model included; training; the trainer's own evaluation, where test
questions are given.
"""

import json
import re
import resource
import sys
import tempfile
import time
from typing import Any


def main() -> None:
    """Train for a few steps and time all but the first."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOTrainer

    options = json.load(sys.stdin)
    torch.set_num_threads(options["threads"])

    def right(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
        """1 where the answer is what the pattern finds in the response, or occurs in it where there is no pattern."""
        texts = completions if options["plain"] else [response[0]["content"] for response in completions]
        if not options["pattern"]:
            return [float(target in text) for text, target in zip(texts, answer, strict=True)]
        found = [re.search(options["pattern"], text) for text in texts]
        return [float(match is not None and match[1] == target) for match, target in zip(found, answer, strict=True)]

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
            model=AutoModelForCausalLM.from_pretrained(options["model"], dtype=getattr(torch, options["dtype"])),
            reward_funcs=right,
            args=_config(options, out),
            train_dataset=Dataset.from_list(_rows(options, "questions")),
            eval_dataset=Dataset.from_list(_rows(options, "test")) if options["test"] else None,
            processing_class=AutoTokenizer.from_pretrained(options["model"]),
            callbacks=[Clock()],
        )
        spent = [0.0, time.process_time()]
        trainer.train()
        spent.append(time.process_time())
        lengths = [float(log["completions/mean_length"]) for log in trainer.state.log_history if "reward" in log]
        accuracy = {"accuracy": trainer.evaluate()["eval_reward"]} if options["test"] else {}
        spent.append(time.process_time())
    ends, cpu = Clock.ends, Clock.cpu
    print(
        json.dumps(
            {
                "seconds": (ends[-1] - ends[0]) / (len(ends) - 1),
                "cpu_seconds": (cpu[-1] - cpu[0]) / (len(cpu) - 1),
                "tokens": sum(lengths[1:]) / len(lengths[1:]) * options["prompts"] * options["group"],
                "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            }
            | accuracy
            | {f"{name}_cpu": spent[i + 1] - spent[i] for i, name in enumerate(("start", "train", "evaluate"))}
        )
    )


def _rows(options: Any, name: str) -> list[Any]:
    """Questions with their answers; those of a chat model are messages."""
    asked = options[name]
    texts = [q if options["plain"] else [{"role": "user", "content": q}] for q, _ in asked]
    return [{"prompt": text, "answer": answer} for text, (_, answer) in zip(texts, asked, strict=True)]


def _config(options: Any, out: str) -> Any:
    """The trainer's settings: all responses of a step in one batch, all test questions at once, no KL penalty."""
    from trl import GRPOConfig

    samples = options["samples"]
    return GRPOConfig(
        output_dir=out,
        per_device_train_batch_size=options["prompts"] * options["group"],
        num_generations=options["group"],
        per_device_eval_batch_size=max(1, len(options["test"])) * samples,
        num_generations_eval=samples,
        max_completion_length=options["new_tokens"],
        learning_rate=options["learning_rate"],
        lr_scheduler_type="constant",
        beta=0.0,
        max_steps=options["steps"],
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
