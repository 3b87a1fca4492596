"""Keyed draws are draws: every token as often as its probability says, after temperature and cuts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import GenerationConfig

from core.randomness import fold, gumbel, row_keys
from experiments.bridges.trl.sampling import keyed_draws, noise_key, without_sampling

SCORES = torch.tensor([2.0, 1.0, 0.0, -1.0, -30.0])
PROMPT = torch.zeros(1, 3, dtype=torch.long)
ROWS = 20_000


def drawn(position: int = 0, first: int = 0, rows: int = ROWS, samples: int = 4, **settings: float) -> Tensor:
    """The token of every row at a position."""
    config = GenerationConfig(do_sample=True, **({"temperature": 1.0, "top_k": 0, "top_p": 1.0} | settings))  # type: ignore[no-untyped-call]
    processors = keyed_draws(config, noise_key(3, 1, True), first, rows, samples, "cpu")
    for t in range(position + 1):
        scores, ids = SCORES.expand(rows, -1), torch.zeros(rows, 3 + t, dtype=torch.long)
        for processor in processors:
            scores = processor(ids, scores)
    return scores.argmax(-1)


@pytest.mark.parametrize("position", [0, 5])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_tokens_come_as_often_as_their_probabilities_say(position: int, temperature: float) -> None:
    wanted = torch.softmax(SCORES / temperature, -1)
    found = drawn(position, temperature=temperature).bincount(minlength=5) / ROWS
    # five standard errors of a share
    assert ((found - wanted).abs() <= 5 * (wanted * (1 - wanted) / ROWS).sqrt() + 1e-9).all()


def test_what_is_cut_off_is_never_drawn() -> None:
    assert set(drawn(top_k=2).tolist()) == {0, 1}
    assert set(drawn(top_k=1).tolist()) == {0}
    assert set(drawn(top_p=0.6).tolist()) == {0}  # softmax: 0.64, 0.24, 0.09, 0.03
    assert set(drawn(min_p=0.2).tolist()) == {0, 1}  # from 0.2 x 0.64 on


@given(first=st.integers(0, 50), rows=st.integers(1, 30))
def test_a_row_has_its_draw_whichever_process_holds_it(first: int, rows: int) -> None:
    assert torch.equal(drawn(1, first, rows), drawn(1, 0, first + rows)[first:])


def test_a_draw_is_the_noise_of_prompt_sample_position_and_token() -> None:
    row = torch.arange(64)
    keys = row_keys(noise_key(3, 1, True), row // 4, row % 4)
    noise = gumbel(fold(fold(keys, 2)[:, None], torch.arange(5)))
    assert torch.equal(drawn(2, rows=64), (SCORES + noise).argmax(-1))


def test_keys_are_of_seed_rollout_and_purpose() -> None:
    keys = {noise_key(seed, number, training) for seed in (0, 1) for number in (0, 1) for training in (True, False)}
    assert len(keys) == 8


def test_greedy_is_the_same_without_sampling() -> None:
    config = GenerationConfig(do_sample=True, temperature=0.7, top_p=0.9, max_new_tokens=5, eos_token_id=2)  # type: ignore[no-untyped-call]
    greedy = without_sampling(config)
    assert (greedy.do_sample, greedy.max_new_tokens, greedy.eos_token_id) == (False, 5, 2)
    assert config.do_sample is True
