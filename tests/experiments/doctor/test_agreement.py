"""Packed and alone, sampler and trainer, forecast and measured: what counts as equal, and what does not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.generation.base import Generation
from core.model.packing import Packed
from core.model.policy import Policy, load_policy
from experiments.doctor.agreement import _judged, check_packed, check_sampler, check_vllm, equal_share
from experiments.doctor.finding import CAVEAT, FAILS, SKIPPED, WORKS
from experiments.doctor.models import CUT_DOWN, Subject, make_random_model, subject_of
from experiments.doctor.speed import check_speed
from experiments.doctor.visit import RANDOM, Visit
from experiments.doctor.weighing import judge_memory

TINY = {
    **CUT_DOWN,
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@pytest.fixture
def visit(tmp_path: Path) -> Visit:
    return Visit(str(tmp_path), str(tmp_path))


def test_packed_and_alone_and_sampler_and_trainer_agree_on_the_embedded_model(visit: Visit) -> None:
    rows = [*check_packed(visit), *check_sampler(visit)]
    assert [row.result for row in rows] == [WORKS, WORKS]
    assert all(row.numbers["difference"] < 5e-4 for row in rows)


def test_rows_that_see_each_other_are_found(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Packed.attend

    def shifted(self: Packed, layer: int, query: Any, key: Any, value: Any, scale: float) -> Any:
        return real(self, layer, query, key.roll(1, 0), value.roll(1, 0), scale)

    policy = load_policy(Subject("embedded", "float32", False).settings())
    monkeypatch.setattr(Packed, "attend", shifted)
    monkeypatch.setattr(Subject, "policy", lambda *_: policy)
    (found,) = check_packed(visit)
    assert found.result == FAILS


def test_a_sampler_that_reports_other_probabilities_is_found(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    logps = Policy.logps

    def off(self: Policy, *args: Any, **kwargs: Any) -> Any:
        values, entropies = logps(self, *args, **kwargs)
        return values + 0.005, entropies

    monkeypatch.setattr(Policy, "logps", off)
    (found,) = check_sampler(visit)
    assert found.result == CAVEAT
    assert "@token_truncated" in found.remedy


def test_differences_by_hand() -> None:
    assert [_judged("t", x, "a").result for x in (1e-5, 4e-3, 0.02, float("nan"))] == [WORKS, CAVEAT, FAILS, FAILS]


def generation(rows: list[list[int]]) -> Generation:
    width = max(map(len, rows))
    tokens = torch.tensor([[row + [0] * (width - len(row))] for row in rows])
    mask = torch.tensor([[[True] * len(row) + [False] * (width - len(row))] for row in rows])
    zeros = torch.zeros(tokens.shape)
    return Generation(tokens, mask, zeros, zeros, torch.zeros(tokens.shape[:2], dtype=torch.bool))


def test_the_share_of_equal_tokens_by_hand() -> None:
    one = generation([[1, 2, 3], [4]])
    assert equal_share(one, one) == 1
    assert equal_share(one, generation([[1, 2, 9], [4]])) == 0.75
    assert equal_share(one, generation([[1, 2], [4]])) == 0.75
    assert equal_share(generation([[1, 0], [4]]), generation([[1], [4, 5]])) == pytest.approx(2 / 3)


def test_without_vllm_its_check_is_skipped_with_the_reason(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    (found,) = check_vllm(visit)
    assert found.result == SKIPPED
    assert "pip install 'grpo-lab[vllm]'" in found.seen


def test_the_model_of_random_weights_has_a_text_for_every_number(tmp_path: Path) -> None:
    make_random_model(tmp_path / "m", TINY)
    policy = load_policy(Subject(str(tmp_path / "m"), "float32", False).settings())
    assert policy.vocabulary == 300
    texts = policy.texts([torch.tensor([i]) for i in range(256, 299)])
    assert texts == [f"<{i}>" for i in range(256, 299)]
    assert [each.name for each in tmp_path.iterdir()] == ["m"]


def test_it_is_made_once(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.doctor.models.CUT_DOWN", TINY)
    there = subject_of(Visit(visit.scratch, "", RANDOM))
    monkeypatch.setattr("experiments.doctor.models.make_random_model", None)
    assert subject_of(Visit(visit.scratch, "", RANDOM)) == there
    assert (there.dtype, there.on_gpu) == ("float32", False)


def test_speeds_are_shares_of_the_rate_of_products(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.doctor.speed.SIZES", {False: (2, 2, 4)})
    monkeypatch.setattr("experiments.doctor.speed.rate", lambda *_: 1e15)
    (slow,) = check_speed(visit)
    assert slow.result == CAVEAT
    numbers = slow.numbers
    share = 6 * numbers["parameters"] * numbers["trained_tokens_a_second"] / 1e15
    assert numbers["shares"]["training"] == pytest.approx(share)
    monkeypatch.setattr("experiments.doctor.speed.rate", lambda *_: 1.0)
    (fast,) = check_speed(visit)
    assert fast.result == WORKS


def test_a_forecast_that_is_off_is_a_caveat_with_the_factor() -> None:
    def judged(predicted: int, measured: int) -> Any:
        forecast: Any = SimpleNamespace(peak=predicted << 20, phase="train")
        peak: Any = SimpleNamespace(peak=measured << 20, length=5.0)
        return judge_memory("t", forecast, peak)

    assert judged(100, 100).result == WORKS
    assert judged(100, 200).result == CAVEAT
    assert "times 2.0" in judged(100, 200).remedy
    assert "ratio 0.50" in judged(100, 200).seen
    assert judged(200, 100).result == CAVEAT
