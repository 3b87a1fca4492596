"""GRPO by hand: three steps of the training loop on one page, with nothing behind it but a model and a random key.

    python docs/one_step.py

It trains the embedded model, a character model of 0.3M parameters, on chains of one-digit sums ("4+8+7=" wants ">9."),
and ends with the very weights, bit for bit, that `grpolab train` ends with. `tests/test_one_step.py` holds it to that,
so what you read here is what happens. Every phase says where the real one lives, and what that does more.

Letters: P prompts a step, G responses to each prompt, B = P * G rows, T tokens of the longest response.
"""

import torch
from torch import Tensor
from torch.optim import AdamW

from core.environments.tasks.chain_sums import chain_sums, final_digit
from core.model.packing import Packed
from core.model.policy import Policy, PolicySettings, load_policy
from core.randomness import fold, gumbel, key, row_keys

SEED, STEPS = 0, 3
P, G, MAX_TOKENS = 4, 4, 56
LEARNING_RATE, MAX_GRAD_NORM, CLIP, EPS = 3e-4, 1.0, 0.2, 1e-6
B = P * G


def train() -> Policy:
    """The loop. The real one, `core/loop/train.py`, also evaluates, logs, saves, resumes and keeps budgets."""
    torch.set_num_threads(1)  # another number of threads adds up in another order

    # The model and its optimizer (`core/model/policy.py`): a transformers model, and AdamW on its float32 weights.
    policy = load_policy(PolicySettings("embedded"))
    adam = AdamW(policy.model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    task = chain_sums()

    for step in range(1, STEPS + 1):
        # Prompts (`core/loop/rollout.py`, draw_problems). Which come is a function of seed and step alone, so that all
        # methods meet the same questions under one seed, whatever else they draw.
        problems = [task.problem("train", key(SEED, "prompts"), (step - 1) * P + p) for p in range(P)]
        prompts = [policy.tokens(problem) for problem in problems]

        # Sample and score (`core/loop/scoring.py`): G responses to each prompt, 1 for a right one, 0 for a wrong one.
        responses = sample(policy, prompts, key(SEED, "sampling", step, 0))
        texts = policy.texts(responses)
        rewards = torch.tensor([final_digit(problems[row // G], text).value for row, text in enumerate(texts)])

        # Learn (`core/loop/learn.py`, which first fills in what other methods ask for: a reference, a critic's values).
        advantages = group_advantages(rewards.view(P, G)).flatten()
        norm = update(policy, adam, prompts, responses, advantages)
        print(f"step {step}: {rewards.mean():.3f} right, gradient norm {norm:.3f}, first response {texts[0]}")
    return policy


@torch.no_grad()
def sample(policy: Policy, prompts: list[Tensor], noise_key: int) -> list[Tensor]:
    """B responses as token ids, each up to its end-of-sequence token or `MAX_TOKENS`.

    A token is the argmax of logits + Gumbel noise, which is a draw from their softmax. The noise is a function of step,
    prompt, sample, position and token: policies that agree write the same text, and what differs is the methods' doing.
    The real one, `core/generation/native.py`, keeps keys and values instead of reading the prefix for every token.
    """
    responses = [prompts[row // G][:0] for row in range(B)]
    keys = row_keys(noise_key, torch.arange(B) // G, torch.arange(B) % G)
    for t in range(MAX_TOKENS):
        rows = [row for row in range(B) if not set(responses[row].tolist()) & set(policy.end_tokens)]
        if not rows:
            break
        flat = Packed([torch.cat([prompts[row // G], responses[row]]) for row in rows])  # one row without padding
        hidden = policy.hidden(flat.input_ids, flat.positions, flat)[flat.prompt_end]
        noise = gumbel(fold(fold(keys[rows], t)[:, None], torch.arange(policy.vocabulary)))
        for row, token in zip(rows, (policy.logits(hidden) + noise).argmax(-1), strict=True):
            responses[row] = torch.cat([responses[row], token[None]])
    return responses


def group_advantages(rewards: Tensor) -> Tensor:
    """Every reward [P, G] against its group, in place of a critic: A_i = (r_i - mean(r)) / (std(r) + eps).

    Exactly 0 where a group did alike throughout. The real one: `estimators/advantages/group.py`.
    """
    r = rewards.double()
    advantages = (r - r.mean(1, keepdim=True)) / (r.std(1, keepdim=True) + EPS)
    return advantages.masked_fill(r.amax(1, keepdim=True) == r.amin(1, keepdim=True), 0.0).float()


def update(policy: Policy, adam: torch.optim.AdamW, prompts: list[Tensor], responses: list[Tensor], A: Tensor) -> float:
    """One optimizer step by the advantages A [B]; returns the norm of the gradient.

    The real one, `core/loop/update.py`, goes by micro-batches, and over a rollout several times where it is asked to.
    """
    # Rows whose advantage is 0 teach nothing. The others' prompts are read once, however many responses hang on each.
    rows = A.nonzero()[:, 0].tolist()
    if not rows:
        return 0.0
    groups = sorted({row // G for row in rows})
    owner = [groups.index(row // G) for row in rows]
    lengths = torch.tensor([len(responses[row]) for row in rows])[:, None]
    T = int(lengths.max())
    # Log-probabilities [b, T] of the tokens that were sampled, 0 past the end (`core/model/logps.py`).
    logps, _ = policy.logps([prompts[g] for g in groups], [responses[row] for row in rows], owner, width=T)

    # The objective (`estimators/objectives/token.py`): PPO's clipped surrogate. With one update a rollout the policy
    # that sampled is the one that learns: the ratio is 1 and nothing is clipped. What counts is its gradient.
    ratio, advantages = (logps - logps.detach()).exp(), A[rows][:, None]
    losses = -torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)

    # The aggregator (`estimators/aggregators.py`): mean over a response's tokens, then over all B responses. Weights,
    # not a reduced loss: however the rows are split, the gradients add up to the same.
    weights = (torch.arange(T) < lengths) / lengths.double() / B

    # AdamW on the clipped gradient (`core/model/optimizer.py`, which also has schedules and float32 masters).
    adam.zero_grad()
    (weights.float() * losses).sum().backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), MAX_GRAD_NORM)
    adam.step()
    return float(norm)


if __name__ == "__main__":
    train()
