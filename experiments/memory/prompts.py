"""How long the prompts of a recipe are."""

from dataclasses import dataclass
from typing import Final

from transformers import PreTrainedModel

from core.errors import GrpoLabError
from core.loop.recipe import Recipe
from core.model.policy import Policy, tokenizer_of
from core.randomness import key

PROBLEMS: Final = 32
"""Training problems whose prompts are measured."""


@dataclass(frozen=True)
class Prompts:
    """How many tokens prompts have, and how that is known."""

    mean: int
    longest: int
    are_counted: bool
    """By the model's tokenizer; else a token a byte, which no tokenizer exceeds."""


def measure_prompts(recipe: Recipe, model: PreTrainedModel) -> Prompts:
    """Tokens of the prompts of a few training problems, or their bytes where the model comes without a tokenizer."""
    stream = key(0, "prompts")
    stored = getattr(recipe.source, "problems", None)
    problems = stored[:PROBLEMS] if stored else [recipe.task.problem("train", stream, i) for i in range(PROBLEMS)]
    try:
        tokenizer = tokenizer_of(recipe.policy)
    except GrpoLabError:
        texts = [p.prompt if isinstance(p.prompt, str) else "".join(m["content"] for m in p.prompt) for p in problems]
        lengths, are_counted = [len(text.encode()) for text in texts], False
    else:
        policy = Policy(model, tokenizer)
        lengths, are_counted = [len(policy.tokens(problem)) for problem in problems], True
    return Prompts(-(-sum(lengths) // len(lengths)), max(lengths), are_counted)
