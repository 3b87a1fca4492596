"""The enumerable policy: everything that has a finite sum adds up, and gradients are those of autograd."""

import torch
from torch import Tensor

from experiments.lens.policy import DIFFICULTIES, END, Responses, TabularPolicy, make_policy

BANDIT = TabularPolicy(
    Responses.all(2, 1),
    logits=torch.tensor([[[1.0, 3.0]]], dtype=torch.float64).log(),
    reference=torch.zeros(1, 1, 2, dtype=torch.float64),
    rewards=torch.tensor([[0.0, 1.0]], dtype=torch.float64),
)
"""Stop at once (reward 0, probability 1/4), or be cut after one letter (reward 1, probability 3/4)."""


def test_responses_of_a_small_case_by_hand() -> None:
    table = Responses.all(vocabulary=3, max_tokens=2)
    words = [row[valid].tolist() for row, valid in zip(table.tokens, table.mask, strict=True)]
    assert words == [[0], [1, 0], [2, 0], [1, 1], [1, 2], [2, 1], [2, 2]]
    assert table.truncated.tolist() == [False] * 3 + [True] * 4
    assert table.lengths.tolist() == [1, 2, 2, 2, 2, 2, 2]
    assert table.states.tolist() == [[0, 0], [0, 1], [0, 2], [0, 1], [0, 1], [0, 2], [0, 2]]
    assert table.prefixes == 3


def test_the_bandit_by_hand() -> None:
    torch.testing.assert_close(BANDIT.probabilities, torch.tensor([[0.25, 0.75]], dtype=torch.float64))
    # d p / d logits = p (1 - p) (-1, 1)
    torch.testing.assert_close(BANDIT.true_gradient, torch.tensor([[[-3 / 16, 3 / 16]]], dtype=torch.float64))
    assert BANDIT.greedy.tolist() == [1]
    torch.testing.assert_close(BANDIT.sum_squared_probs, torch.full((1, 2, 1), 10 / 16, dtype=torch.float64))


def test_probabilities_sum_to_one_and_difficulties_are_as_asked() -> None:
    policy = make_policy()
    torch.testing.assert_close(policy.probabilities.sum(1), torch.ones(7, dtype=torch.float64))
    torch.testing.assert_close(policy.success, torch.tensor(DIFFICULTIES, dtype=torch.float64))


def test_right_and_wrong_responses_of_every_length_have_real_probability() -> None:
    policy = make_policy()
    lengths, mixed = policy.responses.lengths, slice(1, -1)  # prompts that are neither hopeless nor solved
    for right in (True, False):
        for length in (2, 3, 4, 5):
            chosen = policy.probabilities * ((policy.rewards > 0) == right) * (lengths == length)
            assert (chosen.sum(1)[mixed] > 0.003).all()
    assert (policy.probabilities * policy.responses.truncated).sum() > 0
    # but for noise, length is no sign of the verdict
    mean = [
        (policy.probabilities * (policy.rewards == r) * lengths).sum()
        / (policy.probabilities * (policy.rewards == r)).sum()
        for r in (0, 1)
    ]
    assert abs(mean[0] - mean[1]) < 0.3


def test_values_progress_and_greedy_agree_with_their_meaning() -> None:
    policy = make_policy((0.2, 0.8))
    table = policy.responses
    torch.testing.assert_close(policy.values[:, :, 0], policy.success[:, None].expand(-1, len(table.tokens)))
    torch.testing.assert_close(policy.progress.sum(-1), policy.rewards.double())
    # the value of a prefix is the mean reward of what begins with it
    begins = table.tokens[:, 0] == 1
    there = policy.probabilities[0] * begins
    expected = (there * policy.rewards[0]).sum() / there.sum()
    torch.testing.assert_close(policy.values[0, int(begins.nonzero()[0]), 1], expected)
    for n, k in enumerate(policy.greedy.tolist()):
        for token, state in zip(table.tokens[k][table.mask[k]], table.states[k], strict=False):
            assert token == policy.logits[n, state].argmax()
    assert (table.tokens[policy.greedy][~table.truncated[policy.greedy]] == END).any(1).all()


def test_gradients_are_those_of_autograd() -> None:
    policy = make_policy((0.3, 0.6), vocabulary=3, max_tokens=3)
    draw = torch.Generator().manual_seed(1)
    R, owners = 12, 3
    prompts, owner = torch.randint(2, (R,), generator=draw), torch.randint(owners, (R,), generator=draw)
    responses = torch.randint(len(policy.responses.tokens), (R,), generator=draw)
    by_logp, by_entropy = torch.randn(2, R, 3, generator=draw, dtype=torch.float64)
    gradients = policy.gradients(prompts, responses, by_logp, by_entropy, owner, owners)

    logits = policy.logits.clone().requires_grad_()
    log_probs = logits.log_softmax(-1)
    entropy = policy.at_tokens(-(log_probs.exp() * log_probs).sum(-1))
    logps = policy.response_logps(log_probs)
    terms: Tensor = (by_logp * logps[prompts, responses] + by_entropy * entropy[prompts, responses]).sum(1)
    for index in range(owners):
        (expected,) = torch.autograd.grad(terms[owner == index].sum(), logits, retain_graph=True)
        torch.testing.assert_close(gradients[index], expected)
