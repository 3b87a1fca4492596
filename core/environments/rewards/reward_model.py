"""A learnt reward: a transformer with one output, read at the last token of prompt and response.

What is read is text, in the reward model's own tokenizer, with its end-of-sequence token after every response. So a
response that was cut off reads like one that ended there: what happens to those is for the variant to decide
(`truncated`, `soft_overlong`). The last token is the last that is not padding, as transformers' classifiers have it;
where a tokenizer pads with its end-of-sequence token, the reward is thus read just before that.
"""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Final, TypeAlias

import torch
from accelerate import PartialState
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from core.errors import GrpoLabError
from core.model.loading import DTYPES, Dtype, read_model
from core.model.packing import Packed
from core.model.prompts import with_response
from core.model.soundness import check_head, check_trunk, context_of
from core.parts.contracts import reward
from core.parts.problems import Messages, Problem, Score
from core.parts.registry import REQUIRED
from core.parts.settings import Range
from core.store.files import read_json

Row: TypeAlias = Sequence[int]
"""Prompt and response as token ids."""

REMEDY: Final = (
    "make one with grpolab preferences and grpolab reward-model, or give the folder of any sequence classifier with "
    "num_labels = 1"
)


class RewardModel:
    """A sequence classifier with one output that judges many responses in flat, unpadded rows."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        head = getattr(model, "score", None)
        if not isinstance(head, nn.Linear) or head.out_features != 1:
            raise GrpoLabError(f"{type(model).__name__} has no linear output layer `score` with one output")
        self.model, self.tokenizer, self._head = model, tokenizer, head
        self._context = context_of(model.config)
        self._padding: int | None = getattr(model.config.get_text_config(), "pad_token_id", None)

    def row(self, prompt: str | Messages, response: str) -> list[int]:
        """A prompt, as text or chat messages, and the response to it as token ids; raises on an empty or long one."""
        ids = with_response(self.tokenizer, prompt, response, "the reward model")
        end = self.tokenizer.eos_token_id
        if end is not None and ids[-1:] != [end]:
            ids.append(end)
        while ids and ids[-1] == self._padding:
            ids.pop()
        if not 1 <= len(ids) <= self._context:
            raise GrpoLabError(
                f"prompt and response have {len(ids)} tokens: the reward model reads 1 to "
                f"{self._context}; shorten the prompts or lower train.max_tokens"
            )
        return ids

    def rewards(self, groups: Sequence[Sequence[Row]]) -> Tensor:
        """The rewards of all rows in order, float32 [R], in one pass; what the rows of a group begin with, once."""
        prompts: list[Row] = []
        rests: list[Row] = []
        owner: list[int] = []
        for group in groups:
            common = _common(group)
            for place, row in enumerate(group):
                if place == 0 or not common:
                    prompts.append(row[:common] if common else row)
                rests.append(row[common:] if common else ())
                owner.append(len(prompts) - 1)
        device = self._head.weight.device
        flat = [[torch.tensor(ids, dtype=torch.long, device=device) for ids in part] for part in (prompts, rests)]
        packed = Packed(flat[0], flat[1], owner)
        states: Tensor = self.model.base_model(
            input_ids=packed.input_ids, position_ids=packed.positions, use_cache=False, layout=packed
        ).last_hidden_state[0]
        lengths = torch.tensor([len(rest) for rest in rests], device=device)
        last = torch.where(lengths > 0, packed.response_start + lengths - 1, packed.prompt_end[owner])
        rewards: Tensor = self._head(states[last])[:, 0].float()
        return rewards

    @torch.no_grad()
    def judge(self, groups: Sequence[Sequence[Row]], micro_tokens: int) -> Tensor:
        """The rewards of all rows in order, float32 [R], on the CPU, in passes of at most `micro_tokens` tokens."""
        return torch.cat([self.rewards(part).cpu() for part in passes(groups, micro_tokens)])

    def save(self, folder: Path) -> None:
        """Write model and tokenizer as transformers does."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _common(rows: Sequence[Row]) -> int:
    """How many tokens all rows begin with."""
    return sum(1 for _ in takewhile(lambda at: len(set(at)) == 1, zip(*rows, strict=False)))


def passes(groups: Sequence[Sequence[Row]], micro_tokens: int) -> Iterator[list[list[Row]]]:
    """Groups, cut where they must be, in passes of at most so many tokens; a single row may be longer."""
    batch: list[list[Row]] = []
    size = 0
    for group in groups:
        common, is_open = _common(group), False
        for row in group:
            more = len(row) - common * is_open
            if size and size + more > micro_tokens:
                yield batch
                batch, size, is_open, more = [], 0, False, len(row)
            if is_open:
                batch[-1].append(row)
            else:
                batch.append([row])
            size, is_open = size + more, True
    if batch:
        yield batch


def load_reward_model(name: str, dtype: str = "float32", device: torch.device | str = "cpu") -> RewardModel:
    """Read a reward model's folder; raises `GrpoLabError` where it is not one, or cannot be packed."""
    folder = find_reward_model(name)
    if dtype not in DTYPES:
        raise GrpoLabError(f"reward_model.dtype = {dtype!r}: must be one of {', '.join(DTYPES)}")
    model, tokenizer = read_model(
        str(folder), DTYPES[dtype], setting="reward_model.model", kind=AutoModelForSequenceClassification
    )
    setting = f"reward_model.model = {name!r}"
    try:
        reward_model = RewardModel(model.to(torch.device(device)).eval(), tokenizer)  # type: ignore[arg-type]
    except GrpoLabError as error:
        raise GrpoLabError(f"{setting} cannot be used: {error}; {REMEDY}") from error
    check_trunk(model, setting)
    check_head(model, reward_model._head, setting)
    return reward_model


def find_reward_model(name: object) -> Path:
    """The folder of a reward model, or that within a folder of `grpolab reward-model`; raises where there is none."""
    if not isinstance(name, str):
        raise GrpoLabError(f"reward_model.model is not set: {REMEDY}")
    path = Path(name).expanduser()
    folder = next((place for place in (path, path / "checkpoint") if (place / "config.json").is_file()), None)
    if folder is None:
        begun = " yet: its training has not ended" if (path / "manifest.json").is_file() else ""
        raise GrpoLabError(f"reward_model.model = {name!r}: there is no model there{begun}; {REMEDY}")
    kinds = read_json(folder / "config.json").get("architectures") or []
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise GrpoLabError(
            f"reward_model.model = {name!r} is not a reward model but {', '.join(kinds) or 'of unknown kind'}; {REMEDY}"
        )
    return folder


Stamp: TypeAlias = tuple[tuple[str, int, int], ...]


def _stamp(folder: Path) -> Stamp:
    """By what a change of a folder's files is noticed."""
    files = sorted(file for pattern in ("*.safetensors", "*.bin", "*.json") for file in folder.glob(pattern))
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=4)
def _digest(stamp: Stamp) -> str:
    """A short digest of the weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name, _, _ in stamp:
        if not name.endswith(".json"):
            with open(name, "rb") as file:
                while block := file.read(1 << 24):
                    digest.update(block)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _loaded(name: str, dtype: str, device: torch.device, stamp: Stamp) -> RewardModel:  # noqa: ARG001
    """The model, read once in a process unless its files change."""
    return load_reward_model(name, dtype, device)


def _describe(*, model: str, dtype: str, **_: object) -> str:
    """Which model it is; refuses one that is not there."""
    return f"reward model {model} in {dtype}, weights {_digest(_stamp(find_reward_model(model)))}"


@reward(together=True, start=_describe, limits={"micro_tokens": Range(1)})
def reward_model(
    problems: Sequence[Problem],
    responses: Sequence[Sequence[str]],
    *,
    model: str = REQUIRED,
    dtype: Dtype = "float32",
    micro_tokens: int = 16_384,
) -> list[list[Score]]:
    """What a learnt reward model gives each response: a number, and no verdict.

    `model` is the folder of a sequence classifier with one output, in transformers' format, or of `grpolab
    reward-model`. All responses of a rollout are read in passes of at most `micro_tokens` tokens, each prompt once.
    List a verifier before it at weight 0 to see what the proxy is worth: `train.rewards = [@final_digit,
    @reward_model]`, `train.reward_weights = [0.0, 1.0]`. Source: Christiano et al. 2017 (arXiv:1706.03741); Stiennon
    et al. 2020 (arXiv:2009.01325).
    """
    judge = _loaded(model, dtype, PartialState().device, _stamp(find_reward_model(model)))
    groups = [[judge.row(p.prompt, text) for text in texts] for p, texts in zip(problems, responses, strict=True)]
    values = iter(judge.judge(groups, micro_tokens).tolist())
    return [[Score(next(values), correct=False) for _ in group] for group in groups]
