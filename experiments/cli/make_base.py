"""Make an embedded base model: a small causal language model pretrained on a noisy mixture.

In every mixture most responses answer at once and are mostly wrong; the others work it out with a few slips. So the
base sometimes answers at once, sometimes works it out, and has seen no preference between them.
"""

import argparse
import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.progress import Progress as Bar
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from core.errors import GrpoLabError, MachineError, near
from experiments.bases import BASES

END = "."


def run_make_base(options: argparse.Namespace) -> int:
    """`grpolab make-base`."""
    steps = options.steps or steps_of(options.task)
    with Bar() as bar:
        shown = bar.add_task("pretraining", total=steps)
        folder = make_base(
            options.task,
            Path(options.out),
            seed=options.seed,
            steps=steps,
            report=lambda step, loss: bar.update(shown, completed=step, description=f"pretraining, loss {loss:.3f}"),
        )
    print(f"base model: {folder}; use it with -b \"policy.model = '{folder}'\"")
    return 0


def make_tokenizer(alphabet: str) -> PreTrainedTokenizerFast:
    """One token per character; '.' ends a response."""
    vocabulary = {character: i for i, character in enumerate(END + alphabet)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=END))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)  # type: ignore[no-untyped-call]


def pieces(response: str | Sequence[str]) -> Sequence[str]:
    """What a mixture gave, as texts of which the first, third, fifth and so on are the policy's."""
    return [response] if isinstance(response, str) else response


def steps_of(name: str) -> int:
    """Training steps of a task's shipped base; raises on a task that has none."""
    if name not in BASES:
        raise GrpoLabError(f"there is no base for the task '{name}': {near(name, BASES)}")
    return BASES[name].steps


def _architecture(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """A Llama of 0.3M parameters."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def rows_of(tokenizer: PreTrainedTokenizerFast, texts: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
    """Token ids and labels, [B, T] each, of prompts and the pieces after them; labels are -100 but for the policy's."""
    ids = [tokenizer("".join(text))["input_ids"] for text in texts]
    width = max(map(len, ids))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    labels = torch.full_like(tokens, -100)
    for i, text in enumerate(texts):
        ends = list(itertools.accumulate(map(len, text)))
        for start, end in list(itertools.pairwise(ends))[::2]:
            labels[i, start:end] = tokens[i, start:end]
    return tokens, labels


def make_base(
    name: str,
    folder: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    rows: int = 128,
    report: Callable[[int, float], None] | None = None,
) -> Path:
    """Pretrain a task's base from scratch and save it with its tokenizer; deterministic for a seed, on one thread.

    Only what is the policy's is learnt, on problems of the training split; `steps` defaults to the base's own.
    `report(step, loss)` is called after every step.
    """
    steps = steps or steps_of(name)
    base = BASES[name]
    torch.set_num_threads(1)  # the number of threads changes the last bits, and 3,000 steps make them grow
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = make_tokenizer(base.alphabet)
    model = LlamaForCausalLM(_architecture(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.05)
    task = base.task()
    for step in range(steps):
        problems = [task.problem("train", seed, step * rows + i) for i in range(rows)]
        texts = [(str(p.prompt), *pieces(base.mixture(p, rng))) for p in problems]
        tokens, labels = rows_of(tokenizer, texts)
        loss = model(input_ids=tokens, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if report:
            report(step + 1, loss.item())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # a full disk is an error of another type with every library that writes
        raise MachineError(f"cannot write the model to {folder}: {error}; choose another --out") from error
    return folder
