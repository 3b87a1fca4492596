"""A task whose responses run to the limit, so that a step has the requested shape."""

from collections.abc import Mapping
from types import MappingProxyType

from core.parts.contracts import reward, task
from core.parts.problems import Problem
from core.parts.registry import Part

THINGS = ("a river", "a lighthouse", "a village", "a long journey", "a storm", "an old clock", "a garden", "a bridge")


@reward
def share_of_e(problem: Problem, response: str) -> float:  # noqa: ARG001 - the contract's arguments
    """The share of the letter e, which differs within every group: every response is trained on."""
    return response.count("e") / max(1, len(response))


class LongAnswers:
    """Requests for stories."""

    rewards: tuple[Part, ...] = (share_of_e,)
    suites = ("test",)
    patterns: Mapping[str, str] = MappingProxyType({})

    def problem(self, split: str, seed: int, index: int) -> Problem:  # noqa: ARG002 - the contract's arguments
        """Story `index`, round and round."""
        thing = THINGS[index % len(THINGS)]
        return Problem(
            [{"role": "user", "content": f"Tell me a very long and detailed story about {thing}."}], "", index
        )


@task
def long_answers() -> LongAnswers:
    """Stories without an end, for measuring what a step takes."""
    return LongAnswers()
