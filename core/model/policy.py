"""The policy: a causal language model with its tokenizer, read from a hub id, a folder or a GGUF file."""

import contextlib
import copy
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.modeling_layers import GradientCheckpointingLayer

from core.distributed import is_main
from core.errors import GrpoLabError
from core.model.adapters import LoraSettings, adapted_layers, adapter_weight, add_adapters, save_adapters
from core.model.attention import Attention, choose_kernel
from core.model.decoding import BlockStep, LibraryStep, Step, can_lay_out, is_written_out
from core.model.loading import DTYPES, Dtype, read_model, read_tokenizer
from core.model.logps import sum_squared_probs, support_logmass, token_logps
from core.model.optimizer import Optimizer, OptimizerSettings
from core.model.packing import Kernel, Layout, Packed, scatter_rows
from core.model.prompts import Heard, observation_tokens, problem_tokens, read_template
from core.model.sharding import MakeSharding, full_tensor
from core.model.soundness import check_head, check_repeats, check_trunk, context_of
from core.model.trainable import TrainedModel
from core.model.truncation import Truncation
from core.parts.contracts import setting
from core.parts.problems import Problem
from core.parts.settings import COUNT, Range

MANY_TOKENS: Final = 1024
"""Tokens to be decoded from which laying the weights out for it pays: that takes about as long as a few dozen."""


@dataclass(frozen=True)
class PolicySettings:
    """Where the weights come from, the precision they are computed in, and which are trained."""

    model: str
    dtype: str = "float32"
    gradient_checkpointing: bool = False
    lora: LoraSettings | None = None
    """Adapters are trained instead of the weights."""
    chat_template: str = ""
    """What makes a text of chat messages; "": the template that the tokenizer comes with."""
    attention: str = "auto"
    """How packed rows attend, see `core.model.attention`."""

    @property
    def digest(self) -> str:
        """Of the chat template, which may have been read from a file; "" where there is none of one's own."""
        return hashlib.blake2b(self.chat_template.encode(), digest_size=8).hexdigest() if self.chat_template else ""


@setting(limits={"lora_rank": Range(0, 4096), "lora_alpha": COUNT})
def policy(
    *,
    model: str = "embedded",
    dtype: Dtype = "float32",
    gradient_checkpointing: bool = False,
    lora_rank: int = 0,
    lora_alpha: int = 32,
    lora_targets: str | Sequence[str] = "all-linear",
    chat_template: str = "",
    attention: Attention = "auto",
) -> PolicySettings:
    """The model to train: an embedded one, a folder, a .gguf file, `package:NAME` or a transformers id.

    Embedded are `embedded` (for chain_sums), `islanders`, `lookups` and `stack_programs`, each for the task so named.
    `package:NAME` is the GGUF file that an installed Python package ships. Below float32, the optimizer keeps float32
    master weights. `gradient_checkpointing` keeps each layer's input alone for the backward pass and computes the rest
    again: less memory, about a third more time in training. `lora_rank` from 1 up trains adapters of that rank (Hu et
    al. 2022, arXiv:2106.09685, W + lora_alpha / lora_rank * B A) on `lora_targets`, linear layers by name; the rest
    stays frozen. `chat_template`: a file of one's own, or its text, instead of the one that the tokenizer comes with.
    `attention`, in scoring and training: `padded` runs everywhere; `flex`, not on a CPU, is torch's flex attention
    (Dong et al. 2024, arXiv:2412.05496), each prompt once and nothing padded; `auto` is flex on CUDA where a trial of
    it succeeds, else padded.
    """
    targets = lora_targets if isinstance(lora_targets, str) else tuple(lora_targets)
    lora = LoraSettings(lora_rank, lora_alpha, targets) if lora_rank else None
    template = read_template(chat_template) if chat_template else ""
    return PolicySettings(model, dtype, gradient_checkpointing, lora, template, attention)


def tokenizer_of(settings: PolicySettings) -> PreTrainedTokenizerBase:
    """The tokenizer alone, without the weights; raises `GrpoLabError` when it is missing."""
    return _with_template(read_tokenizer(settings.model), settings)


def _with_template(tokenizer: PreTrainedTokenizerBase, settings: PolicySettings) -> PreTrainedTokenizerBase:
    if settings.chat_template:
        tokenizer.chat_template = settings.chat_template
    return tokenizer


Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def with_gathered_weights(
    method: "Callable[Concatenate[Policy, Parameters], Result]",
) -> "Callable[Concatenate[Policy, Parameters], Result]":
    """A method of `Policy` that is one pass through its model: weights that are spread come when they are needed."""

    @functools.wraps(method)
    def passing(policy: "Policy", /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        call = functools.partial(method, policy, *args, **kwargs)
        return policy.sharding.run(call) if policy.sharding else call()

    return passing


class Policy(TrainedModel):
    """A model that scores and continues tokens in flat, unpadded rows."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kernel: Kernel = "padded") -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.kernel: Kernel = kernel
        """How tokens attend in scoring and training; prompts that are sampled from attend on padded copies."""
        self._head: nn.Linear = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self.dtype = self._head.weight.dtype
        """What passes compute in."""
        self._cached_output: tuple[Tensor, Tensor | None] | None = None
        self.vocabulary = self._head.weight.shape[0]
        """V, the number of output classes."""
        self.context = context_of(model.config)
        self.end_tokens = _end_tokens(model, tokenizer)
        self.version = 0
        """Optimizer steps that its weights have taken: with it a copy of them knows whether it is stale."""
        self._heard: Heard = set()
        # what scoring and training cost beside sampling: prompt and response tokens, each prompt once a pass
        self.forward_tokens = 0
        self.backward_tokens = 0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._head.weight.device

    @property
    def _output(self) -> tuple[Tensor, Tensor | None]:
        """Weight [V, h] and bias of the output layer, whole; all ranks together, where they are sharded."""
        if self._cached_output:
            return self._cached_output
        bias: Tensor | None = getattr(self._head, "bias", None)
        return full_tensor(self._head.weight, self.dtype), None if bias is None else full_tensor(bias, self.dtype)

    def shard(self, sharding: MakeSharding, dtype: torch.dtype) -> None:
        """Spread the float32 weights over the ranks; passes compute in `dtype`."""
        super().shard(sharding, dtype)
        self.dtype = dtype

    def optimizer(self, settings: OptimizerSettings) -> Any:
        """The optimizer of what is trained, made once and before the first pass."""
        return self.sharding.optimizer(settings) if self.sharding else Optimizer(self.model.parameters(), settings)

    @contextlib.contextmanager
    def unsharded(self) -> Iterator[None]:
        """Keep the whole weights on this rank meanwhile, to sample from: ranks need not keep step with each other."""
        if not self.sharding:
            yield
            return
        with self.sharding.gathered(), torch.no_grad():
            self._cached_output = self._output
            try:
                yield
            finally:
                self._cached_output = None

    @torch.no_grad()
    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight, whole and with its adapter added, by its name in transformers' model; tied ones once.

        All ranks together, where weights are spread over them.
        """
        adapted = dict(adapted_layers(self.model))
        for name, parameter in self.model.named_parameters():
            if ".lora_" in name:
                continue
            weight = full_tensor(parameter)
            layer, _, leaf = name.rpartition(".base_layer.")
            if layer and leaf == "weight":
                weight = weight + adapter_weight(adapted[layer]).to(weight.dtype)
            yield name.replace(".base_layer.", "."), weight

    def frozen_copy(self) -> "Policy":
        """The present model a second time, not to be trained."""
        return Policy(copy.deepcopy(self.model).requires_grad_(False), self.tokenizer, self.kernel)

    @torch.no_grad()
    def save(self, folder: Path) -> None:
        """Write model (adapters alone, in peft's format, where there are any) and tokenizer; all ranks together."""
        state = {name: full_tensor(x).detach().cpu() for name, x in self.model.named_parameters()}
        if not is_main():
            return
        if self.has_adapters:
            save_adapters(self.model, state, folder)
        else:
            self.model.save_pretrained(folder, state_dict=state if self.sharding else None)
        self.tokenizer.save_pretrained(folder)

    @property
    def has_adapters(self) -> bool:
        """Whether adapters are trained instead of the weights."""
        return next(adapted_layers(self.model), None) is not None

    def tokens(self, problem: Problem) -> Tensor:
        """A problem's prompt as token ids; chat messages go through the tokenizer's template."""
        ids = problem_tokens(self.tokenizer, problem, self._heard)
        if ids and max(ids) >= self.vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise GrpoLabError(
                f"the model's tokenizer gives the token {token!r} the number {max(ids)}, but the model has "
                f"{self.vocabulary} tokens only: give the tokenizer that belongs to it"
            )
        return torch.tensor(ids, dtype=torch.long).to(self.device, non_blocking=True)

    def observation_tokens(self, observation: str, role: str | None) -> list[int]:
        """Token ids of what an environment says between two turns; as a chat message of a `role`, or None: as text."""
        return observation_tokens(self.tokenizer, observation, role, self.end_tokens)

    def texts(self, responses: Sequence[Tensor]) -> list[str]:
        """Responses as text: all their tokens, special ones too, but ends of sequence and padding."""
        left_out = {*self.end_tokens, self.tokenizer.pad_token_id}
        shown = [[token for token in response.tolist() if token not in left_out] for response in responses]
        if isinstance(self.tokenizer, PreTrainedTokenizerFast) and not self.tokenizer.clean_up_tokenization_spaces:
            # what it comes to; transformers looks at every token's type before
            texts: list[str] = self.tokenizer.backend_tokenizer.decode_batch(shown, skip_special_tokens=False)
            return texts
        return [str(text) for text in self.tokenizer.batch_decode(shown, skip_special_tokens=False)]

    def hidden(self, ids: Tensor, positions: Tensor, layout: Layout) -> Tensor:
        """Last hidden states [N, h] of one flat row of N tokens."""
        output = self.model.base_model(input_ids=ids, position_ids=positions, use_cache=False, layout=layout)
        states: Tensor = output.last_hidden_state[0]
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, V], float32."""
        return torch.nn.functional.linear(hidden, *self._output).float()

    def step(self, tokens: int) -> Step:
        """What decodes up to `tokens` tokens with the present weights; to be made anew once they have changed."""
        if self.sharding or not self._written_out:
            return LibraryStep(self.model, self._output)
        laid_out = tokens >= MANY_TOKENS and can_lay_out(self.device.type, self.dtype)
        return BlockStep(self.model, self._output, laid_out=laid_out)

    @functools.cached_property
    def _written_out(self) -> bool:
        return is_written_out(self.model, self._output)

    @with_gathered_weights
    def logps(
        self,
        prompts: Sequence[Tensor],
        responses: Sequence[Tensor],
        owner: Sequence[int],
        *,
        width: int,
        temperature: float = 1.0,
        entropy: bool = False,
        kept: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probability of every token of R responses, and entropies if asked: float32 [R, width], 0 past the end.

        Response i continues `prompts[owner[i]]`; each prompt is computed once. `kept` [N, V]: of the distributions cut
        down to these tokens at each of the N tokens of all responses in order.
        """
        predicting, valid = self.predicting(prompts, responses, owner, width)
        weight, bias = self._output
        logps, entropies = token_logps(
            predicting,
            weight,
            torch.cat(list(responses)),
            bias=bias,
            temperature=temperature,
            entropy=entropy,
            kept=kept,
        )
        return scatter_rows(logps, valid), None if entropies is None else scatter_rows(entropies, valid)

    @torch.no_grad()
    @with_gathered_weights
    def sum_squared_probs(
        self,
        prompts: Sequence[Tensor],
        responses: Sequence[Tensor],
        owner: Sequence[int],
        *,
        width: int,
        temperature: float = 1.0,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Sum over the vocabulary of the squared probabilities at every token: float32 [R, width], 0 past the end.

        `kept` as in `logps`.
        """
        predicting, valid = self.predicting(prompts, responses, owner, width)
        weight, bias = self._output
        flat = sum_squared_probs(predicting, weight, bias=bias, temperature=temperature, kept=kept)
        return scatter_rows(flat, valid)

    @torch.no_grad()
    @with_gathered_weights
    def support_logmass(
        self,
        prompts: Sequence[Tensor],
        responses: Sequence[Tensor],
        owner: Sequence[int],
        *,
        width: int,
        temperature: float,
        truncation: Truncation,
    ) -> Tensor:
        """Log of the mass that a truncation keeps at every token: float32 [R, width], 0 past the end."""
        predicting, valid = self.predicting(prompts, responses, owner, width)
        weight, bias = self._output
        flat = support_logmass(predicting, weight, bias=bias, temperature=temperature, truncation=truncation)
        return scatter_rows(flat, valid)

    def predicting(
        self, prompts: Sequence[Tensor], responses: Sequence[Tensor], owner: Sequence[int], width: int
    ) -> tuple[Tensor, Tensor]:
        """Hidden states [N, h] that predict the N tokens of all responses in order, and their places in [R, width].

        The places are on the host.
        """
        # the last token of a response predicts nothing that is asked for
        packed = Packed(prompts, [r[:-1] for r in responses], owner, kernel=self.kernel)
        self.forward_tokens += packed.input_ids.numel()
        self.backward_tokens += packed.input_ids.numel() * torch.is_grad_enabled()
        hidden = self.hidden(packed.input_ids, packed.positions, packed)
        valid = torch.arange(width) < torch.tensor([len(r) for r in responses])[:, None]
        places = valid.flatten().nonzero()[:, 0].to(self.device, non_blocking=True)
        prompt_of = torch.tensor(owner, dtype=torch.long).to(self.device, non_blocking=True)
        column = torch.arange(width, device=self.device)
        # token 0 is predicted at the prompt's end, token t at response token t - 1
        sources = (packed.response_start[:, None] + column - 1).where(column > 0, packed.prompt_end[prompt_of][:, None])
        return torch.nn.functional.embedding(sources.flatten()[places], hidden), valid


def load_policy(settings: PolicySettings, device: torch.device | str = "cpu", setting: str = "policy.model") -> Policy:
    """Read model and tokenizer; raises `GrpoLabError` when they are missing or the architecture is not supported.

    `setting` is what messages call the model's name.
    """
    model, tokenizer = read_model(settings.model, DTYPES[settings.dtype], setting=setting)
    model.to(torch.device(device)).eval()  # type: ignore[arg-type]
    where = f"{setting} = {settings.model!r}"
    check_trunk(model, where)
    check_head(model, model.get_output_embeddings(), where)  # type: ignore[no-untyped-call]
    kernel = choose_kernel(settings.attention, model)
    if settings.lora:
        add_adapters(model, settings.lora, settings.model)
    if settings.gradient_checkpointing:
        _checkpoint_gradients(model, settings.model)
    check_repeats(model, where)
    return Policy(model, _with_template(tokenizer, settings), kernel)


def _checkpoint_gradients(model: PreTrainedModel, name: str) -> None:
    """Compute each decoder layer's inside again in the backward pass instead of keeping it."""
    # renamed in transformers 5.20
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise GrpoLabError(f"policy.gradient_checkpointing: {name!r} does not support it: {error}") from error
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            # the switch that the layer looks at; what is in it stays without dropout, and so do its own functions
            layer.training = True
            for setting, value in vars(layer).items():
                if "drop" in setting and isinstance(value, float):
                    setattr(layer, setting, 0.0)


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every token id that ends a response."""
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ids = {tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}
    tokens = tuple(sorted(int(i) for i in ids if isinstance(i, int)))
    if not tokens:
        raise GrpoLabError("the model has no end-of-sequence token: set eos_token_id in its configuration")
    return tokens
