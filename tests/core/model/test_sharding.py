"""Weights spread over ranks by torch, in a group of one process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.tensor import DTensor

from core.model.policy import Policy, PolicySettings, load_policy
from core.model.sharding import FullyShard


@pytest.fixture
def spread(tmp_path: Path) -> Iterator[Policy]:
    """The embedded model, whose output layer is tied, in shards."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        policy = load_policy(PolicySettings("embedded"))
        policy.shard(FullyShard, torch.float32)
        yield policy
    finally:
        distributed.destroy_process_group()


def test_a_tied_weight_is_gathered_and_handed_over_once(spread: Policy) -> None:
    whole = load_policy(PolicySettings("embedded"))
    names = [name for name, _ in whole.weights()]
    head, embeddings = spread.model.get_output_embeddings(), spread.model.get_input_embeddings()  # type: ignore[no-untyped-call]
    with spread.unsharded():
        assert not isinstance(head.weight, DTensor)
        assert head.weight is embeddings.weight
        handed_over = {name: weight.clone() for name, weight in spread.weights()}
    assert list(handed_over) == names
    assert all(torch.equal(weight, handed_over[name]) for name, weight in whole.weights())
    # afterwards both are the shards again
    assert isinstance(head.weight, DTensor)
    assert head.weight is embeddings.weight
    assert [name for name, _ in spread.weights()] == names
