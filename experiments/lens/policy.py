"""A policy small enough to be enumerated: tabular softmax over every prefix, so that each expectation is a finite sum.

A response is a word of letters that ends with the token END, or is cut at `max_tokens`. Axis letters beside the
usual: `N` prompts of the policy, `K` possible responses, `S` prefixes after which a token is drawn, `V` tokens.
Episodes of several turns are responses too, some of whose tokens an environment wrote (episodes.py).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from core.errors import GrpoLabError

END: Final = 0
DIFFICULTIES: Final = (0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
"""Success probabilities of the prompts of `make_policy`, from very hard to very easy."""


@dataclass(frozen=True, eq=False)
class Turns:
    """What is of which turn in episodes; all [K, T], and 0 outside the episodes."""

    sampled: Tensor
    """bool: tokens that the policy draws; the others are observations, the same in every episode that has them."""
    numbers: Tensor
    """int64: the turn of each token, from 1; an observation's is that of the turn that it answers."""
    anchors: Tensor
    """int64: a number for the state in which a turn was taken, at its sampled tokens."""
    calls: Tensor
    """int64: at a turn's last sampled token 1 for a call that worked, -1 for one that failed."""


@dataclass(frozen=True, eq=False)
class Responses:
    """Every response of at most `max_tokens` tokens over `vocabulary` tokens, END included."""

    tokens: Tensor
    """[K, T], int64: END and nothing after it, or cut."""
    mask: Tensor
    """[K, T], bool."""
    states: Tensor
    """[K, T], int64: the prefix, out of S, at which each token was drawn."""
    truncated: Tensor
    """[K], bool: cut at the limit."""
    vocabulary: int
    turns: Turns | None = None
    """Of episodes."""

    @property
    def lengths(self) -> Tensor:
        """[K], int64: tokens of each response, END included."""
        return self.mask.sum(1)

    @property
    def sampled(self) -> Tensor:
        """[K, T], bool: tokens that the policy draws."""
        return self.mask if self.turns is None else self.turns.sampled

    @property
    def draws(self) -> Tensor:
        """[K], int64: tokens that the policy draws in each response."""
        return self.sampled.sum(1)

    @property
    def max_tokens(self) -> int:
        """The generation limit, T."""
        return self.tokens.shape[1]

    @property
    def prefixes(self) -> int:
        """S, the number of prefixes after which a token is drawn."""
        return int(self.states.max()) + 1

    @staticmethod
    def all(vocabulary: int, max_tokens: int) -> "Responses":
        """Enumerate them: shorter ones first."""
        letters = range(1, vocabulary)
        prefixes = [word for n in range(max_tokens) for word in itertools.product(letters, repeat=n)]
        row = {prefix: index for index, prefix in enumerate(prefixes)}
        ended = [(*prefix, END) for prefix in prefixes]
        cut = list(itertools.product(letters, repeat=max_tokens))
        words = ended + cut
        tokens = torch.zeros(len(words), max_tokens, dtype=torch.long)
        states = torch.zeros_like(tokens)
        for k, word in enumerate(words):
            tokens[k, : len(word)] = torch.tensor(word)
            states[k, : len(word)] = torch.tensor([row[word[:t]] for t in range(len(word))])
        lengths = torch.tensor([len(word) for word in words])
        mask = torch.arange(max_tokens) < lengths[:, None]
        return Responses(tokens, mask, states, torch.arange(len(words)) >= len(ended), vocabulary)


@dataclass(frozen=True, eq=False)
class TabularPolicy:
    """Free logits for each token after each prefix of each prompt, and a verifier's reward for each response.

    All tables are float64, and everything of `[N, K, T]` is 0 outside the responses.
    """

    responses: Responses
    logits: Tensor
    """[N, S, V]."""
    reference: Tensor
    """[N, S, V]: logits of the reference policy."""
    rewards: Tensor
    """[N, K]: 1 where the verifier accepts the response, else 0; of an episode its return."""
    sampler: "TabularPolicy | None" = None
    """The policy that responses are drawn from; None: this one."""
    age: int = 0
    """Updates from the sampler to this policy."""
    chance: Tensor | float = 1.0
    """[N, K]: probability of all that an environment answers in an episode."""
    turn_rewards: Tensor | None = None
    """[N, K, T]: of episodes, at each turn's last sampled token; `rewards` has their sum in it."""
    critic: float = 1.0
    """What `values` are multiplied by: 0 for a critic that has not learnt anything."""

    @property
    def behaviour(self) -> "TabularPolicy":
        """The policy that responses are drawn from."""
        return self.sampler or self

    @cached_property
    def log_probs(self) -> Tensor:
        """[N, S, V]: log-probability of each token after each prefix."""
        return self.logits.log_softmax(-1)

    @cached_property
    def logps(self) -> Tensor:
        """[N, K, T]: log-probability of each token of each response."""
        return self.response_logps(self.log_probs)

    @cached_property
    def reference_logps(self) -> Tensor:
        """[N, K, T]: the same under the reference policy."""
        return self.response_logps(self.reference.log_softmax(-1))

    @cached_property
    def probabilities(self) -> Tensor:
        """[N, K]: probability of each response, summing to 1 over K."""
        return self.logps.sum(-1).exp() * self.chance

    @cached_property
    def cumulative(self) -> Tensor:
        """[N, K]: cumulative probabilities, prompt n's from n to n + 1, so that the whole table is sorted."""
        total = self.probabilities.cumsum(-1)
        return total / total[:, -1:] + torch.arange(self.prompts)[:, None]

    @cached_property
    def success(self) -> Tensor:
        """[N]: expected reward of each prompt."""
        return (self.probabilities * self.rewards).sum(-1)

    @cached_property
    def entropy(self) -> Tensor:
        """[N, K, T]: entropy of the distribution that each token was drawn from, in nats."""
        return self.at_tokens(-(self.log_probs.exp() * self.log_probs).sum(-1))

    @cached_property
    def sum_squared_probs(self) -> Tensor:
        """[N, K, T]: sum over the vocabulary of squared probabilities."""
        return self.at_tokens((2 * self.log_probs).exp().sum(-1))

    @cached_property
    def values(self) -> Tensor:
        """[N, K, T]: expected reward still to come, given the prefix before each token: what a perfect critic says."""
        responses, drawn = self.responses, self.responses.sampled
        passes = torch.zeros(responses.prefixes, len(responses.tokens), dtype=torch.float64)
        k = torch.arange(len(responses.tokens))[:, None].expand(responses.states.shape)
        passes[responses.states[drawn], k[drawn]] = 1
        reached = torch.einsum("nk,sk->ns", self.probabilities, passes)
        rewarded = torch.einsum("nk,sk->ns", self.probabilities * self.rewards, passes)
        expected = self.at_tokens(rewarded / reached)
        if self.turn_rewards is not None:
            paid = self.turn_rewards.cumsum(-1) - self.turn_rewards
            expected = (expected - paid).masked_fill(~drawn, 0.0)
        return self.critic * expected

    @cached_property
    def progress(self) -> Tensor:
        """[N, K, T]: a perfect process reward: what each token adds to the expected reward.

        The first token also brings what was expected before it, so that a response's sum is its reward.
        """
        after = self.values.roll(-1, -1)
        last = torch.arange(self.responses.max_tokens) == self.responses.lengths[:, None] - 1
        after = torch.where(last, self.rewards[..., None], after)
        before = torch.where(torch.arange(self.responses.max_tokens) == 0, 0.0, self.values)
        return (after - before).masked_fill(~self.responses.mask, 0.0)

    @cached_property
    def greedy(self) -> Tensor:
        """[N], int64: the response that takes the most probable token each time."""
        likeliest = self.logits.argmax(-1)
        follows = (likeliest[:, self.responses.states] == self.responses.tokens) | ~self.responses.mask
        return follows.all(-1).long().argmax(-1)

    @cached_property
    def true_gradient(self) -> Tensor:
        """[N, S, V]: gradient in the logits of the expected reward, averaged over prompts, by enumeration."""
        logits = self.logits.clone().requires_grad_()
        probabilities = self.response_logps(logits.log_softmax(-1)).sum(-1).exp() * self.chance
        (gradient,) = torch.autograd.grad((probabilities * self.rewards).sum(-1).mean(), logits)
        return gradient

    @property
    def prompts(self) -> int:
        """Number of prompts, N."""
        return len(self.logits)

    def at_tokens(self, per_state: Tensor) -> Tensor:
        """A quantity of each prefix [N, S] at the tokens drawn after it, [N, K, T]."""
        return per_state[:, self.responses.states].masked_fill(~self.responses.sampled, 0.0)

    def response_logps(self, log_probs: Tensor) -> Tensor:
        """Log-probabilities [N, S, V] of tokens as those of responses, [N, K, T]."""
        responses = self.responses
        drawn = responses.tokens.masked_fill(~responses.sampled, 0)  # an observation is no token of the policy's
        return log_probs[:, responses.states, drawn].masked_fill(~responses.sampled, 0.0)

    def gradients(
        self,
        prompts: Tensor,
        responses: Tensor,
        by_logp: Tensor,
        by_entropy: Tensor,
        owner: Tensor,
        owners: int,
    ) -> Tensor:
        """Derivatives by the log-probabilities of sampled tokens, turned into gradients in the logits.

            d log pi(y | s) / d logits(s) = onehot(y) - pi(s),   d H(s) / d logits(s) = -pi(s) (log pi(s) + H(s))

        `prompts`, `responses` and `owner` are [R], `by_logp` and `by_entropy` [R, T]; rows of one `owner` are added
        up. Returns [owners, N, S, V].
        """
        table, V = self.responses, self.responses.vocabulary
        rows = self.prompts * table.prefixes
        row = owner[:, None] * rows + prompts[:, None] * table.prefixes + table.states[responses]
        inside = table.sampled[responses]
        row, token, weight = row[inside], table.tokens[responses][inside], by_logp[inside]
        drawn = torch.bincount(row * V + token, weight, minlength=owners * rows * V)
        drawn = drawn.view(owners, self.prompts, table.prefixes, V)
        gradient = drawn - drawn.sum(-1, keepdim=True) * self.log_probs.exp()
        if by_entropy.any():
            weight = torch.bincount(row, by_entropy[inside], minlength=owners * rows)
            probs = self.log_probs.exp()
            entropy = -(probs * self.log_probs).sum(-1, keepdim=True)
            slope = -probs * (self.log_probs + entropy)
            gradient = gradient + weight.view(owners, self.prompts, table.prefixes, 1) * slope
        return gradient


def starts_with_a(word: Sequence[int]) -> bool:
    """The verifier: the first letter is the right one, and the response stopped by itself."""
    return word[0] == 1 and word[-1] == END


def make_policy(
    difficulties: Sequence[float] = DIFFICULTIES,
    *,
    vocabulary: int = 3,
    max_tokens: int = 5,
    accepts: Callable[[Sequence[int]], bool] = starts_with_a,
    seed: int = 0,
) -> TabularPolicy:
    """A policy with one prompt for each of `difficulties`, the success probability that its logits are tuned to.

    Noise on every logit, a skill in choosing the first letter, found by bisection, and an inclination to stop that
    grows with length. But for the noise, length says nothing of the verdict or the prompt: so what a variant makes of
    difficulty and what it makes of length show apart. The reference policy's logits are a little off.
    """
    responses = Responses.all(vocabulary, max_tokens)
    draw = torch.Generator().manual_seed(seed)
    shape = (len(difficulties), responses.prefixes, vocabulary)
    noise = 0.2 * torch.randn(shape, generator=draw, dtype=torch.float64)
    reference_noise = 0.3 * torch.randn(shape, generator=draw, dtype=torch.float64)
    words = [row[valid].tolist() for row, valid in zip(responses.tokens, responses.mask, strict=True)]
    verdicts = torch.tensor([accepts(word) for word in words], dtype=torch.float64)
    # an empty response is rare; the share that stops at a length is the same for any number of letters
    stop = torch.cat([torch.tensor([-3.0]), torch.linspace(2.5, -0.8, max_tokens - 1).flip(0)]).double()
    depth = torch.zeros(responses.prefixes, dtype=torch.long)
    depth[responses.states[responses.mask]] = torch.arange(max_tokens).expand(responses.mask.shape)[responses.mask]
    noise[..., END] += stop[depth] + math.log(vocabulary - 1)

    def policy(skill: Tensor) -> TabularPolicy:
        logits = noise.clone()
        logits[:, 0, 1] += skill
        rewards = verdicts.expand(len(difficulties), -1)
        return TabularPolicy(responses, logits, logits + reference_noise, rewards)

    target = torch.tensor(difficulties, dtype=torch.float64)
    low, high = torch.full_like(target, -20.0), torch.full_like(target, 20.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = policy(middle).success < target
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    solved = policy((low + high) / 2)
    if not torch.allclose(solved.success, target, atol=1e-9):
        raise GrpoLabError(
            f"make_policy: no skill reaches the success probabilities {list(difficulties)}, the nearest are "
            f"{solved.success.tolist()}; ask for less extreme ones, or allow more tokens"
        )
    return solved
