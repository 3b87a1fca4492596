"""The GPU recipes, run for two steps on CPU with random weights of the same architecture, tiny.

What cannot be tried here is the devices themselves, and vLLM, which has tests of its own: the native generator samples.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import core.parts.registry as registry
from core.generation.vllm import Vllm
from experiments.launchers.job import Job, run_job
from experiments.launchers.torchrun import run_in_processes
from experiments.study.configs import (
    CONFIGS,
    find_config,
    run_text,
)
from experiments.study.processes import read_processes
from experiments.study.settings import Arm
from experiments.study.study import prepare_study

SMALLER = (
    "train.steps = 2",
    "train.prompts = 2",
    "train.group_size = 4",
    "train.max_tokens = 12",
    "train.micro_tokens = 256",
    "evaluation.questions = 2",
    "evaluation.samples = 2",
    "train.generator = @native()",
    "adamw.warmup_steps = 0",
    # any text scores, so that there is something to learn from
    "train.rewards = [@answer_length]",
)
SIZES = {  # heads, key-value heads, tied head: as in Qwen2.5's own configurations
    "qwen2_5_0_5b": (14, 2, True),
    "qwen2_5_1_5b": (12, 2, True),
    "qwen2_5_7b": (28, 4, False),
    "one_gpu_0_5b": (14, 2, True),
    "one_gpu_1_5b_lora": (12, 2, True),
    "one_gpu_7b_lora": (28, 4, False),
    "one_gpu_long": (12, 2, True),
}
PROCESSES = {"qwen2_5_1_5b": "ddp", "qwen2_5_7b": "fsdp2"}
"""The others have one."""

CHAT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}<|assistant|>"


def make_stand_in(folder: Path, heads: int, kv_heads: int, *, tied: bool) -> str:
    """A Qwen2 of the same kind with eight dimensions a head, over bytes."""
    alphabet = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    raw = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = CHAT
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=heads * 8,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=512,
            tie_word_embeddings=tied,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            pad_token_id=tokenizer.eos_token_id,
        )
    )
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_questions(folder: Path) -> Path:
    """GSM8K's layout."""
    rows = [{"question": f"{n} + 1 = ?", "answer": f"So. #### {n + 1}"} for n in range(60)]
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_a_stand_in_trains_by_the_recipe(name: str, forks: None, tmp_path: Path) -> None:
    """Bfloat16, gradient checkpointing, correction, and the processes that the recipe's head names."""
    heads, kv_heads, tied = SIZES[name]
    model = make_stand_in(tmp_path / "model", heads, kv_heads, tied=tied)
    questions = write_questions(tmp_path)
    (tmp_path / "answer_length.py").write_text(
        "from core import reward\n\n\n@reward\ndef answer_length(problem, response):\n"
        '    """Longer answers."""\n    return len(response) / 100\n'
    )
    bindings = [f"policy.model = '{model}'", f"files.path = '{questions}'", *SMALLER]
    sys.path.append(str(tmp_path))
    try:
        import answer_length  # type: ignore[import-not-found]  # noqa: F401

        with registry.config([find_config(f"gpu/{name}")], ["import answer_length", *bindings], include_from=[CONFIGS]):
            text = run_text()
        folder = tmp_path / "run"
        processes = PROCESSES.get(name)
        if processes is None:
            run_job(Job(Arm("grpo", ()), 0, text, str(folder)), lambda _: None)
        else:
            run_in_processes(text, Arm("grpo", ()), 0, str(folder), read_processes(2, processes), lambda _: None)
    finally:
        sys.path.remove(str(tmp_path))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert all(line["grad_norm"] > 0 and 0 < line["correction"] < 2 for line in lines)
    adapters = "lora_rank" in text
    assert adapters == (name in ("one_gpu_1_5b_lora", "one_gpu_7b_lora", "one_gpu_long"))
    assert (folder / "checkpoint" / f"{'adapter_' if adapters else ''}model.safetensors").is_file()


@pytest.mark.parametrize("name", SIZES)
def test_the_head_of_a_recipe_says_that_it_was_not_run_on_a_gpu_and_how_to_start_it(name: str) -> None:
    head = "".join(line for line in (CONFIGS / "gpu" / f"{name}.gin").read_text().splitlines() if line.startswith("#"))
    assert "NOT YET RUN ON A GPU" in head
    assert f"grpolab compare -c gpu/{name}" in head
    if processes := PROCESSES.get(name):
        assert f"--accelerate {processes}" in head


def test_the_recipes_of_one_gpu_read_questions_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gsm8k").mkdir()
    for split, first in (("train", 0), ("test", 30)):
        lines = write_questions(tmp_path).read_text().splitlines(keepends=True)[first : first + 30]
        (tmp_path / "gsm8k" / f"{split}.jsonl").write_text("".join(lines))
    for name in SIZES:
        if name.startswith("one_gpu"):
            made = prepare_study([str(CONFIGS / "gpu" / f"{name}.gin")], [], [0])
            assert made.recipes["rloo"].task.problem("test", 0, 0).answer in {str(n) for n in range(31, 61)}


def test_the_studies_correct_for_the_sampler_in_every_arm(tmp_path: Path) -> None:
    questions = f"files.path = '{write_questions(tmp_path)}'"
    made = prepare_study([str(CONFIGS / "gpu" / "qwen2_5_7b.gin")], [questions], [0])
    assert list(made.recipes) == ["grpo", "dr_grpo", "rloo"]
    assert {recipe.variant.card()["correction"] for recipe in made.recipes.values()} == {
        "token_truncated(cap=2.0, floor=0.0)"
    }


@pytest.mark.parametrize("name", SIZES)
def test_the_engine_takes_all_responses_of_a_step_at_once(name: str, tmp_path: Path) -> None:
    """64 (long: 16) prompts x 8 responses: with vLLM's 128 at a time they would be sampled in four waves."""
    questions = f"files.path = '{write_questions(tmp_path)}'"
    made = prepare_study([str(CONFIGS / "gpu" / f"{name}.gin")], [questions], [0])
    for recipe in made.recipes.values():
        assert isinstance(recipe.generator, Vllm)
        assert recipe.generator.max_num_seqs == recipe.prompts * recipe.group_size
