"""Fields of a batch that only a user's module knows: filled, carried, split with the batch, and refused by name."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from core import SETTINGS, Batch, GrpoLabError, advantage, objective, provider
from core.loop.learn import fill
from core.loop.recipe import Recipe
from core.loop.rows import RowTensors
from core.loop.train import run
from core.parts.registry import PROVIDERS, config
from core.store.run_folder import RunStore
from experiments.cli.main import main
from experiments.study.configs import CONFIGS

MODULE = '''
import torch
from torch import Tensor

from core import Batch, Variant, advantage, objective, provider, variant
from estimators.aggregators import token_mean


def place_of(mask: Tensor) -> Tensor:
    return torch.where(mask, torch.arange(mask.shape[-1]) / 20, 0.0)


def centred(batch: Batch) -> Tensor:
    centred = batch.rewards - batch.rewards.mean(1, keepdim=True)
    return torch.where(batch.no_spread[:, None], 0.0, centred)[..., None]


@provider(fills="prompt_size", cost="nothing", shape="[P]")
def sizes(run):
    """Tokens of each prompt."""
    return lambda batch: torch.tensor([float(len(tokens)) for tokens in batch.prompt_tokens])


@provider(fills="place", cost="nothing")
def places(run, *, times: float = 1.0):
    """How far into the response each token stands."""
    return lambda batch: times * place_of(batch.response_mask)


@advantage(needs=("prompt_size", "place"))
def placed(batch: Batch) -> Tensor:
    """Reward minus the group's mean, more at late tokens and for long prompts."""
    return centred(batch) * (1 + batch.require("place")) * batch.require("prompt_size")[:, None, None]


@advantage
def placed_by_hand(batch: Batch) -> Tensor:
    """The same, from what every batch has."""
    sizes = torch.tensor([float(len(tokens)) for tokens in batch.prompt_tokens])
    return centred(batch) * (1 + place_of(batch.response_mask)) * sizes[:, None, None]


@objective
def late(logps: Tensor, old_logps: Tensor, advantages: Tensor, place: Tensor) -> Tensor:
    """Ratio times advantage, more at late tokens."""
    return -torch.exp(logps - old_logps) * advantages * (2 - place)


@objective
def late_by_hand(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """The same, from what every batch has."""
    return -torch.exp(logps - old_logps) * advantages * (2 - place_of(mask))


@variant
def with_own_fields(*, advantage=placed, objective=late) -> Variant:
    """By place."""
    return Variant(advantage=advantage, objective=objective, aggregator=token_mean)
'''


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gin file outside the tree, beside the module that it imports."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "fields_of_a_test.py").write_text(MODULE)
    (tmp_path / "mine.gin").write_text("import fields_of_a_test\ninclude 'embedded.gin'\n")
    return tmp_path / "mine.gin"


SMALL = (
    "train.steps = 2",
    "train.prompts = 4",
    "train.group_size = 4",
    "train.max_tokens = 20",
    "train.epochs = 2",
    "train.minibatches = 2",
    "train.micro_tokens = 60",
    "evaluation.questions = 4",
    "train.variant = @with_own_fields()",
)


def recipe_of(file: Path, *bindings: str) -> Recipe:
    with config([file], [*SMALL, *bindings], include_from=[CONFIGS]):
        recipe: Recipe = SETTINGS["train"]()
    return recipe


def trained(folder: Path, recipe: Recipe) -> list[Mapping[str, Any]]:
    """What two steps wrote down, but for the time that they took."""
    run(recipe, 1, RunStore(folder), facts={"identity": {}}, watch=lambda _: None)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if "seconds" not in name} for record in records]


def test_two_steps_with_own_fields_are_those_in_which_the_parts_compute_them(file: Path) -> None:
    """Over minibatches and micro-batches: each row meets its own numbers."""
    own = recipe_of(file)
    assert [part.name for part in own.providers] == ["places", "sizes"]
    by_hand = recipe_of(
        file, "with_own_fields.advantage = @placed_by_hand", "with_own_fields.objective = @late_by_hand"
    )
    assert not by_hand.providers
    records = trained(file.parent / "own", own)
    assert records == trained(file.parent / "by_hand", by_hand)
    assert all(record["grad_norm"] > 0 for record in records if "grad_norm" in record)
    other = trained(file.parent / "other", recipe_of(file, "places.times = 3.0"))
    assert other[-1]["loss"] != records[-1]["loss"]


def test_check_and_lens_know_own_fields(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(file.with_name("fields_of_a_test.py"))]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "place: nothing" in shown
    assert "prompt_size: nothing" in shown
    assert main(["lens", str(file.with_name("fields_of_a_test.py"))]) != 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "needs place, prompt_size, which the enumerable policy does not have" in shown


def test_a_batch_carries_own_fields_by_hand() -> None:
    declare()
    place = torch.tensor([[[1.0, 2.0], [3.0, 0.0]], [[4.0, 0.0], [5.0, 6.0]]])
    batch = Batch.of([[0, 1], [1, 0]], lengths=[[2, 1], [1, 2]], hard_of_a_test=torch.tensor([7.0, 8.0]))
    batch = batch.having(place_of_a_test=place)
    assert batch.require("hard_of_a_test").tolist() == [7, 8]
    assert batch.rows("place_of_a_test").tolist() == [[1, 2], [3, 0], [4, 0], [5, 6]]
    assert batch.select(torch.tensor([1])).require("hard_of_a_test").tolist() == [8]
    assert batch.select(torch.tensor([1])).require("place_of_a_test").tolist() == [[[4, 0], [5, 6]]]
    short = Batch.of([[1, 1]], hard_of_a_test=torch.tensor([9.0]), place_of_a_test=torch.ones(1, 2, 1))
    joined = Batch.concat([batch, short])
    assert joined.require("hard_of_a_test").tolist() == [7, 8, 9]
    assert joined.require("place_of_a_test")[2].tolist() == [[1, 0], [1, 0]]
    rows = RowTensors.of(batch, torch.zeros(2, 2, 2))
    assert rows.at(torch.tensor([3]))["place_of_a_test"].tolist() == [[5, 6]]
    assert "hard_of_a_test" not in rows
    assert batch.having(place_of_a_test=None).get("place_of_a_test") is None


def test_a_field_that_nobody_fills_is_refused_where_it_is_asked_for() -> None:
    def asks_for_what_nobody_fills(batch: Batch) -> torch.Tensor:
        """Of nothing."""
        return batch.rewards

    with pytest.raises(
        GrpoLabError,
        match=r"test_own_fields.py:\d+: advantage 'asks_for_.*' needs nobodys, which no batch has and no provider "
        r"fills; it may need: greedy_rewards, .*, or a field of your own, whose @provider\(fills=\.\.\.\) is",
    ):
        advantage(needs=("nobodys",))(asks_for_what_nobody_fills)
    with pytest.raises(GrpoLabError, match="a batch has no field 'nobodys', and no provider fills it"):
        Batch.of([[1.0, 2.0]], nobodys=torch.zeros(1))
    declare()
    with pytest.raises(GrpoLabError, match=r"Batch.place_of_a_test was not filled.*needs=\('place_of_a_test',\)"):
        Batch.of([[1.0, 2.0]]).require("place_of_a_test")


def test_a_field_of_another_shape_than_declared_is_refused() -> None:
    declare()
    batch = Batch.of([[1.0, 2.0]], lengths=[[2, 3]])
    message = r"Batch.place_of_a_test has shape \[1, 2\], but with P=1 .* must be \[1, 2, 3\]"
    with pytest.raises(GrpoLabError, match=message):
        fill(batch, {"place_of_a_test": lambda _: torch.zeros(1, 2)})

    def asks_for_a_number_a_prompt(logps: torch.Tensor, hard_of_a_test: torch.Tensor) -> torch.Tensor:
        """[P] is no row."""
        return logps

    with pytest.raises(GrpoLabError, match="asks for hard_of_a_test; its positional parameters are logps and any of "):
        objective(asks_for_a_number_a_prompt)

    def fills_it_otherwise(run: object) -> None:
        """With a number a response."""

    with pytest.raises(GrpoLabError, match=r"fills 'hard_of_a_test' as \[P, G\], but another .* fills it as \[P\]"):
        provider(fills="hard_of_a_test", cost="", shape="[P, G]")(fills_it_otherwise)


def test_of_two_that_fill_an_own_field_one_must_be_chosen(file: Path) -> None:
    recipe_of(file)

    @provider(fills="place", cost="nothing")
    def other_places(run: object) -> Any:
        """Everywhere alike."""
        return lambda batch: torch.ones(batch.mask.shape)

    message = "needs the batch field 'place', which is filled by 'places' .* and 'other_places' .*: choose one, "
    with pytest.raises(GrpoLabError, match=message):
        recipe_of(file)
    recipe = recipe_of(file, "train.providers = [@other_places]")
    assert [part.name for part in recipe.providers] == ["other_places", "sizes"]


def declare() -> None:
    """Providers of two fields."""

    def hard_of_a_test_(run: object) -> None:
        """A number for each prompt."""

    def place_of_a_test_(run: object) -> None:
        """A number for each token."""

    provider(fills="hard_of_a_test", cost="nothing", shape="[P]")(hard_of_a_test_)
    provider(fills="place_of_a_test", cost="nothing")(place_of_a_test_)
    assert {"hard_of_a_test_", "place_of_a_test_"} <= set(PROVIDERS)
