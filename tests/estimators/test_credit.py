"""The credit chain's steps: numbers by hand, and when they change nothing."""

import torch

from core import Batch
from estimators.credit import advantage_clip, top_entropy

ADVANTAGES = torch.tensor([[[3.0, -7.0, 0.5], [1.0, 1.0, 1.0]]])


def batch(entropy: list[list[float]], mask: list[list[bool]] | None = None) -> Batch:
    inside = torch.tensor([mask or [[True] * 3, [True] * 3]])
    return Batch.of([[1.0, 0.0]], inside, behaviour_entropy=torch.tensor([entropy]))


def test_advantages_are_clipped_on_both_sides() -> None:
    made = batch([[0.0] * 3] * 2)
    assert advantage_clip(made, ADVANTAGES, low=-5.0, high=2.0).tolist() == [[[2.0, -5.0, 0.5], [1.0, 1.0, 1.0]]]
    assert advantage_clip(made, ADVANTAGES, low=None, high=2.0).tolist() == [[[2.0, -7.0, 0.5], [1.0, 1.0, 1.0]]]
    assert advantage_clip(made, ADVANTAGES, low=None, high=None).equal(ADVANTAGES)


def test_the_tokens_of_the_highest_entropy_keep_their_advantage() -> None:
    """Six tokens, the quantile .6 of their entropies is that of rank 4 of 6: two and a tie stay."""
    made = batch([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert top_entropy(made, ADVANTAGES, share=0.4).tolist() == [[[0, 0, 0], [1.0, 1.0, 1.0]]]
    assert top_entropy(made, ADVANTAGES, share=0.2).tolist() == [[[0, 0, 0], [0, 1.0, 1.0]]]


def test_the_quantile_lies_between_two_values() -> None:
    """Six tokens, the quantile .45 is at rank 3.25 of 1 to 6, between .3 and .4: three stay, not four."""
    made = batch([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert top_entropy(made, ADVANTAGES, share=0.55).tolist() == [[[0, 0, 0], [1.0, 1.0, 1.0]]]
    # .3 of ten steps is the fourth value exactly, whatever 1 - .7 rounds to
    eleven = Batch.of([[1.0]], torch.ones(1, 1, 11).bool(), behaviour_entropy=torch.arange(11.0).view(1, 1, 11))
    assert top_entropy(eleven, torch.ones(1, 1, 11), share=0.7).sum() == 8


def test_all_tokens_stay_at_a_share_of_1_and_among_equals() -> None:
    made = batch([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert top_entropy(made, ADVANTAGES, share=1.0).equal(ADVANTAGES)
    assert top_entropy(batch([[0.3] * 3] * 2), ADVANTAGES, share=0.1).equal(ADVANTAGES)


def test_tokens_outside_the_mask_have_no_say() -> None:
    """The highest entropies stand in a hole and past the end."""
    made = batch([[9.0, 0.2, 0.3], [0.4, 9.0, 9.0]], [[False, True, True], [True, False, False]])
    kept = top_entropy(made, ADVANTAGES, share=0.1)
    assert kept[made.mask].tolist() == [0, 0, 1.0]
