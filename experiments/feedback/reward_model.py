"""`grpolab reward-model`: train a reward model on pairs of responses by the Bradley-Terry loss.

The trunk is that of `policy.model`, the head one linear output on the state of the last token. The folder is laid out
like a run's (`core.store.run_folder`): killed, the same command goes on from its last checkpoint and ends with the
same bits.

checkpoint/        at the end, the model as transformers saves a sequence classifier
held_out.json      accuracy and calibration on the pairs that were held out
reliability.svg    the same as a picture
"""

import argparse
import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from matplotlib.figure import Figure
from rich.progress import Progress as Bar
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

import core.parts.registry as registry
from core import setting
from core.distributed import init
from core.environments.datasets.pairs import Pair, read_pairs
from core.environments.rewards.reward_model import RewardModel, Row
from core.errors import GrpoLabError
from core.loop.resume import load_training, save_training
from core.model.optimizer import LIMITS, Optimizer, OptimizerSettings
from core.model.policy import Policy, PolicySettings, load_policy
from core.model.trainable import TrainedModel
from core.parts.settings import COUNT, NOT_NEGATIVE, POSITIVE, THREADS, Range
from core.randomness import torch_generator
from core.store.files import (
    write_json,
    write_text,
)
from core.store.run_folder import RunStore
from estimators.preferences import bradley_terry, calibration_error, pair_accuracy, reliability
from experiments.feedback.preferences import PREFERENCES
from experiments.lens.figures import as_svg, svg_settings
from experiments.report.arm_style import INK, MUTED
from experiments.study.configs import (
    CONFIGS,
    build,
    find_config,
)

HELD_OUT: Final = PREFERENCES.part(3)
"""Which prompts are held out."""
EPOCHS: Final = PREFERENCES.part(4)
"""The order of pairs in each epoch."""
BINS: Final = 10
"""Of confidences, in the reliability table."""

PairRows = tuple[Row, Row]
"""A pair as token ids: prompt with chosen and with rejected response."""


class TrainedRewardModel(TrainedModel, RewardModel):
    """A reward model that is trained."""


@dataclass(frozen=True)
class RewardModelSettings:
    """How a reward model is trained."""

    steps: int
    pairs: int
    optimizer: OptimizerSettings
    centering: float
    held_out: float
    every: int
    checkpoint_every: int
    micro_tokens: int
    threads: int


@setting(
    limits={
        **LIMITS,
        "learning_rate": POSITIVE,
        "steps": COUNT,
        "pairs": COUNT,
        "centering": NOT_NEGATIVE,
        "held_out": Range(0, 1, "both"),
        "every": COUNT,
        "checkpoint_every": COUNT,
        "micro_tokens": Range(1),
        "threads": THREADS,
    }
)
def reward_model_training(
    *,
    steps: int = 30,
    pairs: int = 32,
    learning_rate: float = 3e-4,
    weight_decay: float = 0.01,
    warmup_steps: int = 5,
    centering: float = 0.0,
    held_out: float = 0.2,
    every: int = 10,
    checkpoint_every: int = 20,
    micro_tokens: int = 16_384,
    threads: int = 1,
) -> RewardModelSettings:
    """Training of a reward model: `steps` AdamW steps on `pairs` pairs each, in keyed random order, epoch by epoch.

    After a warm-up the learning rate falls linearly to 0. The default is for a small model: large ones take about 1e-5
    (Ouyang et al. 2022, arXiv:2203.02155: 9e-6) and one epoch. `centering` weighs a pull of the rewards towards 0.
    `held_out`: the share of the prompts whose pairs are for testing, done after `every` so many steps.
    """
    optimizer = OptimizerSettings(learning_rate, (0.9, 0.999), 1e-8, weight_decay, warmup_steps, "linear", 1.0)
    return RewardModelSettings(
        steps, pairs, optimizer, centering, held_out, every, checkpoint_every, micro_tokens, threads
    )


def run_reward_model(options: argparse.Namespace) -> int:
    """`grpolab reward-model`."""
    files = [find_config(file) for file in options.config or ["embedded"]]
    with registry.config(files, options.bind, include_from=[CONFIGS]):
        settings: RewardModelSettings = build("reward_model_training")
        policy: PolicySettings = build("policy")
    pairs = read_pairs(options.pairs)
    store = RunStore(Path(options.out))
    with Bar() as bar:
        shown = bar.add_task("training", total=settings.steps)

        def watch(record: Mapping[str, Any]) -> None:
            accuracy = f", held-out accuracy {record['held_out']:.3f}" if "held_out" in record else ""
            bar.update(shown, completed=record["step"], description=f"training, loss {record['loss']:.3f}{accuracy}")

        train_reward_model(settings, policy, pairs, options.seed, store, watch=watch)
    held_out = store.manifest["held_out"]
    gold = "" if held_out["gold_accuracy"] is None else f", {held_out['gold_accuracy']:.3f} by the gold reward"
    print(
        f"{held_out['pairs']} pairs held out: accuracy {held_out['accuracy']:.3f} by the annotator's labels{gold}; "
        f"expected calibration error {held_out['calibration_error']:.3f}"
    )
    print(f"reward model: {store.folder / 'checkpoint'}; use it with -b \"reward_model.model = '{store.folder}'\"")
    return 0


def _rows(model: TrainedRewardModel, pair: Pair) -> PairRows:
    """A pair as tokens, the chosen response first; what is wrong with it is said with file and line."""
    try:
        return model.row(pair.prompt, pair.chosen), model.row(pair.prompt, pair.rejected)
    except GrpoLabError as error:
        raise GrpoLabError(f"{pair.place}: {error}" if pair.place else str(error)) from error


def train_reward_model(
    settings: RewardModelSettings,
    policy: PolicySettings,
    pairs: Sequence[Pair],
    seed: int,
    store: RunStore,
    *,
    watch: Callable[[Mapping[str, Any]], None],
) -> None:
    """Train, from the last checkpoint in `store` if there is one; `watch` is called with every step's record."""
    digest = hashlib.blake2b(repr(pairs).encode(), digest_size=8).hexdigest()
    identity = {"settings": repr(settings), "policy": repr(policy), "pairs": digest, "seed": seed}
    with store.locked():
        store.recover()
        store.check_identity(identity)
        if not store.is_finished:
            store.update_manifest(status="running", kind="reward model", identity=identity)
            _train(settings, policy, pairs, seed, store, watch)


def _train(
    settings: RewardModelSettings,
    policy: PolicySettings,
    pairs: Sequence[Pair],
    seed: int,
    store: RunStore,
    watch: Callable[[Mapping[str, Any]], None],
) -> None:
    torch.set_num_threads(settings.threads)
    model = on_trunk(policy, seed)
    rows = [_rows(model, pair) for pair in pairs]
    train, test = split(pairs, settings.held_out, seed)
    optimizer = Optimizer(model.model.parameters(), settings.optimizer)
    checkpoint = load_training(store, model, optimizer)
    store.rewind(checkpoint)

    for step in range(1 if checkpoint is None else checkpoint["step"] + 1, settings.steps + 1):
        chosen = [train[i] for i in _pairs_of_step(len(train), settings.pairs, seed, step)]
        rate = settings.optimizer.rate(step, settings.steps)
        record = {"step": step, **_step(model, optimizer, settings, rate, rows, pairs, chosen)}
        if step % settings.every == 0 or step == settings.steps:
            leads = _judge(model, [rows[i] for i in test], settings.micro_tokens)
            record["held_out"] = float(pair_accuracy(*leads))
        store.append_metrics(record)
        if step % settings.checkpoint_every == 0:
            save_training(store, model, optimizer, {"step": step})
        watch(record)

    by_part = {
        name: pair_metrics([pairs[i] for i in part], *_judge(model, [rows[i] for i in part], settings.micro_tokens))
        for name, part in (("held_out", test), ("trained", train))
    }
    write_json(store.folder / "held_out.json", by_part["held_out"])
    write_text(store.folder / "reliability.svg", reliability_figure(by_part["held_out"]))
    store.finish(model, **by_part)


def on_trunk(settings: PolicySettings, seed: int) -> TrainedRewardModel:
    """A reward model on the trunk of a language model, with a new head of standard deviation 1 / sqrt(h + 1).

    The head's scale: Stiennon et al. 2020 (arXiv:2009.01325).
    """
    if settings.lora:
        raise GrpoLabError("a reward model is trained whole, without adapters: bind policy.lora_rank = 0")
    policy: Policy = load_policy(settings, init().device)
    config, tokenizer = copy.deepcopy(policy.model.config), policy.tokenizer
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
    trunk = policy.model.base_model
    try:
        with torch.device("meta"):  # the trunk is there already
            make: Any = AutoModelForSequenceClassification.from_config
            model = make(config, dtype=policy.dtype).eval()  # not later: layers that checkpoint are in training mode
    except ValueError as error:
        raise GrpoLabError(f"transformers has no sequence classifier of policy.model = {settings.model!r}") from error
    setattr(model, model.base_model_prefix, trunk)
    h = config.hidden_size
    weight = torch.randn(1, h, generator=torch_generator(seed, "init")) / math.sqrt(h + 1)
    model.score = nn.Linear(h, 1, bias=False)
    model.score.weight = nn.Parameter(weight.to(policy.device, policy.dtype))
    return TrainedRewardModel(model, tokenizer)


def split(pairs: Sequence[Pair], held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Places of the pairs to train on and of those held out: no prompt is in both."""
    prompts = list(dict.fromkeys(repr(pair.prompt) for pair in pairs))
    order = torch.randperm(len(prompts), generator=torch_generator(seed, HELD_OUT)).tolist()
    tested = {prompts[i] for i in order[: round(held_out * len(prompts))]}
    test = [i for i, pair in enumerate(pairs) if repr(pair.prompt) in tested]
    train = [i for i, pair in enumerate(pairs) if repr(pair.prompt) not in tested]
    if not train or not test:
        raise GrpoLabError(
            f"{len(prompts)} prompts, of which {held_out:.0%} are held out, leave nothing to train or to test on: give "
            "more pairs, or bind reward_model_training.held_out"
        )
    return train, test


def _pairs_of_step(n: int, size: int, seed: int, step: int) -> list[int]:
    """The pairs of a step: every epoch meets all n once, in its own order."""
    orders: dict[int, list[int]] = {}
    places = []
    for i in range((step - 1) * size, step * size):
        epoch, place = divmod(i, n)
        if epoch not in orders:
            orders[epoch] = torch.randperm(n, generator=torch_generator(seed, EPOCHS, epoch)).tolist()
        places.append(orders[epoch][place])
    return places


def _step(
    model: RewardModel,
    optimizer: Optimizer,
    settings: RewardModelSettings,
    rate: float,
    rows: Sequence[PairRows],
    pairs: Sequence[Pair],
    places: Sequence[int],
) -> dict[str, float]:
    """One optimizer step on the mean loss of these pairs, micro-batch by micro-batch."""
    total = 0.0
    for part in _micro_batches(rows, places, settings.micro_tokens):
        rewards = model.rewards([rows[i] for i in part]).view(-1, 2)
        margins = [pairs[i].margin for i in part]
        margin = None if None in margins else torch.tensor(margins, device=rewards.device)
        losses = bradley_terry(rewards[:, 0], rewards[:, 1], margin=margin, centering=settings.centering)
        loss = losses.sum() / len(places)
        optimizer.backward(loss)
        total += float(loss.detach())
    norm = optimizer.step(rate)
    if not math.isfinite(total + norm):
        raise GrpoLabError(
            f"the loss or its gradient is not finite ({total}, {norm}): lower reward_model_training.learning_rate"
        )
    return {"loss": total, "grad_norm": norm, "learning_rate": rate}


def _micro_batches(rows: Sequence[PairRows], places: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Batches of whole pairs, of at most `max_tokens` tokens each unless a single pair has more."""
    batch, size = list[int](), 0
    for i in places:
        more = len(rows[i][0]) + len(rows[i][1])
        if batch and size + more > max_tokens:
            yield batch
            batch, size = [], 0
        batch.append(i)
        size += more
    yield batch


def _judge(model: RewardModel, rows: Sequence[PairRows], micro_tokens: int) -> tuple[Tensor, Tensor]:
    """Rewards of chosen and rejected responses, each [N]."""
    chosen, rejected = model.judge(rows, micro_tokens).view(-1, 2).T
    return chosen, rejected


def pair_metrics(pairs: Sequence[Pair], chosen: Tensor, rejected: Tensor) -> dict[str, Any]:
    """Accuracy by the labels and by the gold reward, mean loss, and calibration, of rewards each [N]."""
    table = reliability(chosen, rejected, bins=BINS)
    leads = [
        float(lead) * (1 if pair.gold[0] > pair.gold[1] else -1)
        for pair, lead in zip(pairs, (chosen - rejected).tolist(), strict=True)
        if pair.gold and pair.gold[0] != pair.gold[1]
    ]
    gold = torch.tensor(leads)
    edges = torch.linspace(0.5, 1, BINS + 1).tolist()
    return {
        "pairs": len(pairs),
        "accuracy": float(pair_accuracy(chosen, rejected)),
        "gold_accuracy": float(pair_accuracy(gold, torch.zeros_like(gold))) if leads else None,
        "loss": float(bradley_terry(chosen, rejected).mean()),
        "calibration_error": float(calibration_error(table)),
        "mean_reward": float(torch.cat([chosen, rejected]).mean()),
        "reliability": [
            {"from": round(low, 3), "to": round(high, 3), "pairs": int(n), "confidence": sure, "agreement": agrees}
            for low, high, (n, sure, agrees) in zip(edges, edges[1:], table.tolist(), strict=False)
            if n
        ],
    }


def reliability_figure(calibration: Mapping[str, Any]) -> str:
    """Reliability diagram: agreement with the annotator over confidence, as SVG; an area per bin by its pairs."""
    with svg_settings("reliability"):
        figure = Figure(figsize=(4.6, 4.2), layout="constrained", facecolor="white")
        axes = figure.subplots()
        axes.plot([0.5, 1], [0.5, 1], color=MUTED, linewidth=0.8, linestyle="--", label="calibrated")
        x, y, sizes = (
            [row[name] for row in calibration["reliability"]] for name in ("confidence", "agreement", "pairs")
        )
        areas = [20 + 400 * n / calibration["pairs"] for n in sizes]
        axes.scatter(x, y, s=areas, color=INK, alpha=0.7, linewidth=0, zorder=3)
        for at, value, n in zip(x, y, sizes, strict=True):
            axes.annotate(str(n), (at, value), xytext=(7, 5), textcoords="offset points", fontsize=7, color=MUTED)
        axes.set_xlim(0.48, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("confidence: sigmoid of the difference of rewards")
        axes.set_ylabel("share in which the annotator agrees")
        title = (
            f"{calibration['pairs']} pairs held out, expected calibration error {calibration['calibration_error']:.3f}"
        )
        axes.set_title(title, loc="left", fontsize=9.5, color=INK, pad=8)
        axes.legend(loc="lower right", frameon=False)
        return as_svg(figure)
