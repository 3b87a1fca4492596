"""One run on several processes: the update does not depend on how many, and neither do prompts and noise."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from core import AGGREGATORS, GrpoLabError
from core.distributed import assign_by_cost, gather, init, local_slice
from core.model.loading import EMBEDDED
from core.parts.options import AggregatorOptions
from core.store.lock import lock
from tests.core.loop import rank_program
from tests.forked import Forked

Lines: TypeAlias = list[dict[str, Any]]

RANKS = (1, 2, 4)
CASES = {
    **{
        name: [f"dapo.aggregator = @{name}"]
        for name, part in AGGREGATORS.items()
        if AggregatorOptions.of(part).split_invariant and name != "token_sum"
    },
    # a sum over all tokens of the step has gradients a hundred times as large
    "token_sum": ["dapo.aggregator = @token_sum", "adamw.max_grad_norm = 100.0"],
    "groups_left_out": ["dapo.filter_rounds = 1"],
    # a KL that starts at 0 has gradients of pure rounding at first, which Adam makes as large as any others
    "reference": ["train.variant = @grpo()", "grpo.kl_coef = 0.1", "adamw.learning_rate = 3e-6"],
    "prepared_on_all_rows": ["train.variant = @clip_cov()"],
    "critic": ["train.variant = @ppo()", "critic.learning_rate = 1e-5"],
    "not_finite": ["train.variant = @grpo()", "grpo.objective = @breaks_at_times", "adamw.learning_rate = 3e-6"],
    "stale": ["train.staleness = @uniform_age()", "uniform_age.most = 4"],
    "episodes": ["train.environment = @halves", "train.max_tokens = 56"],
    "adapters": ["train.variant = @grpo()", "grpo.kl_coef = 0.1", "policy.lora_rank = 4"],
}


FURTHEST = 5e-6
"""Of any weight after twelve updates, which move it by up to 1.2e-4; 6.9e-7 was seen."""
ON_FOUR = ("token_mean", "groups_left_out", "reference", "critic")
"""Four processes on two cores take their time."""


@dataclass(frozen=True)
class Kind:
    """A way to shard weights: how processes are configured for it, what a checkpoint has once a rank, what is saved."""

    environment: dict[str, str]
    shards: str
    dtype: torch.dtype
    torchrun: bool = False
    """Whether its processes are to begin anew."""


@pytest.fixture(params=["fsdp2", "zero3"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    if request.param == "fsdp2":
        return Kind({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "*.distcp", torch.float32)
    pytest.importorskip("deepspeed")
    # else weights as small as these would stay gathered
    settings = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
    (tmp_path / "zero3.json").write_text(json.dumps(settings))
    return Kind(
        {
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
            "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "zero3.json"),
        },
        "*/*_optim_states.pt",
        torch.bfloat16,
        torchrun=True,
    )


ROOT = Path(__file__).parents[3]


def request_of(folder: Path, cases: dict[str, list[str]], *, recorded: bool = True, stop_at: int = 0) -> str:
    """The request to the ranks' program."""
    return json.dumps({"folder": str(folder), "cases": cases, "recorded": recorded, "stop_at": stop_at})


def torchrun(
    ranks: int, request: str, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """The program in processes that torchrun starts."""
    program = ["--nproc-per-node", str(ranks), "--standalone", "-m", "tests.core.loop.rank_program", request]
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *program],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def forked(ranks: int, request: str, environment: Mapping[str, str]) -> None:
    """The same in forks, with the variables of torchrun: their imports would take longer than their work."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    settings = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "LOCAL_WORLD_SIZE": str(ranks),
        "WORLD_SIZE": str(ranks),
    }
    processes = [
        Forked(
            rank_program.in_a_fork,
            request,
            folder=ROOT,
            environment={**os.environ, **settings, "RANK": str(rank), "LOCAL_RANK": str(rank), **environment},
        )
        for rank in range(ranks)
    ]
    try:
        while None in (codes := [process.poll() for process in processes]) and not any(codes):
            time.sleep(0.02)
    finally:
        outputs = [process.end() for process in processes]
    assert codes == [0] * ranks, "\n".join(outputs)[-3000:]


def finished(ranks: int, folder: Path, cases: dict[str, list[str]], *, kind: Kind | None = None, **more: Any) -> None:
    """The cases on so many ranks, to their end."""
    request = request_of(folder, cases, **more)
    if kind is None or not kind.torchrun:
        forked(ranks, request, kind.environment if kind else {})
        return
    process = torchrun(ranks, request, kind.environment)
    assert process.returncode == 0, process.stderr[-3000:]


def weights(folder: Path) -> dict[str, Tensor]:
    names = ("model.safetensors", "adapter_model.safetensors")
    return load_file(next(file for name in names if (file := folder / "checkpoint" / name).is_file()))


def metrics(folder: Path) -> Lines:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


class Runs:
    """Every case by number of ranks, made when it is first asked for, once for all of pytest's workers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __truediv__(self, ranks: str) -> Path:
        folder = self._folder / ranks
        with lock(folder, patience=600):
            if not (folder / "done").is_file():
                cases = CASES if int(ranks) < 4 else {case: CASES[case] for case in ON_FOUR}
                finished(int(ranks), folder, cases)
                (folder / "done").touch()
        return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Cases on 1, 2 and 4 ranks."""
    shared = tmp_path_factory.getbasetemp()
    return Runs((shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "ranks")


@pytest.mark.slow
@pytest.mark.parametrize(("case", "ranks"), [*((case, 2) for case in CASES), *((case, 4) for case in ON_FOUR)])
def test_six_steps_do_not_depend_on_the_ranks(runs: Runs, case: str, ranks: int) -> None:
    """Ragged lengths, two updates a rollout, groups left out by dynamic sampling: loss, gradient and weights agree."""
    alone, together = (runs / str(n) / case for n in (1, ranks))
    assert furthest(weights(alone), weights(together)) <= FURTHEST
    for one, other in zip(metrics(alone), metrics(together), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5, abs=1e-6)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
        # a mean over the tokens of all ranks
        assert other["sampler_mismatch"] == pytest.approx(one["sampler_mismatch"], rel=1e-4)
        if case == "critic":
            assert other["value_loss"] == pytest.approx(one["value_loss"], rel=1e-4)
            assert other["value_grad_norm"] == pytest.approx(one["value_grad_norm"], rel=1e-4)
        same = ("groups", "rounds", "trained_tokens", "sampled_tokens", "reward", "no_spread", "prompts_hash", "age")
        for name in same:
            assert other[name] == one[name], name
    seeds = [json.loads((folder / "manifest.json").read_text())["hashes"] for folder in (alone, together)]
    for name in ("initial_weights", "prompts", "first_rollout"):
        assert seeds[0][name] == seeds[1][name]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_cases_are_what_they_say(runs: Runs, case: str) -> None:
    """The weights move by far more than the tolerance, groups are left out, steps differ in size."""
    lines = metrics(runs / "1" / case)
    if case != "adapters":
        assert furthest(load_file(EMBEDDED / "model.safetensors"), weights(runs / "1" / case)) > 1.5e-5
    assert len({line["trained_tokens"] for line in lines}) > 3
    if case == "groups_left_out":
        assert {line["groups"] for line in lines} - {6}
    elif case == "stale":
        assert {line["age_max"] for line in lines} == {0, 2, 4}
        assert any(line["age"] % 2 for line in lines)
    elif case == "not_finite":
        assert 0 < sum(line["skipped_updates"] for line in lines) < 12
    elif case not in ("reference", "adapters", "critic"):
        assert any(line["rounds"] > 1 for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "ranks"), [("token_mean", 2), ("token_mean", 4), ("stale", 2)])
def test_prompts_and_noise_are_the_same_for_any_number_of_ranks(runs: Runs, case: str, ranks: int) -> None:
    """The parts of the ranks, put together, are what one process asks for, call by call."""
    (alone,), parts = (json.loads((runs / str(n) / case / "asked.json").read_text()) for n in (1, ranks))
    assert len(parts) == ranks
    assert any(slots != list(range(len(slots))) for _, slots, _ in alone) == (case == "stale")
    for call, (noise_key, slots, prompts) in enumerate(alone):
        requests = [of_rank[call] for of_rank in parts]
        assert {key for key, _, _ in requests} == {noise_key}
        assert [prompt for _, _, part in requests for prompt in part] == prompts
        assert [slot for _, part, _ in requests for slot in part] == slots


@pytest.mark.slow
def test_sharded_weights_train_like_whole_ones_and_go_on(runs: Runs, tmp_path: Path, kind: Kind) -> None:
    """Two ranks, each with half of every weight; interrupted and resumed."""
    cases = {case: CASES[case] for case in ("reference", "token_mean", "adapters", "not_finite")}
    finished(2, tmp_path / "whole", cases, kind=kind)
    for case in cases:
        assert furthest(weights(runs / "1" / case), weights(tmp_path / "whole" / case)) <= FURTHEST
        for one, other in zip(metrics(runs / "1" / case), metrics(tmp_path / "whole" / case), strict=True):
            assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
            assert other["skipped_updates"] == one["skipped_updates"]
        (every,), held = (
            json.loads((folder / case / "held.json").read_text()) for folder in (runs / "1", tmp_path / "whole")
        )
        # of odd sizes, one rank has a number more
        assert sum(held) == pytest.approx(every, rel=1e-3)
        assert held[0] == pytest.approx(held[1], rel=1e-3)
    cut = tmp_path / "cut"
    finished(2, cut, cases, stop_at=3, kind=kind)
    shards = list((cut / "reference" / "checkpoint").iterdir())
    assert sorted(path.name for path in shards) == ["shards-000003", "state.pt"]
    assert len(list((cut / "reference" / "checkpoint" / "shards-000003").glob(kind.shards))) == 2
    finished(2, cut, cases, kind=kind)
    for case in cases:
        assert furthest(weights(tmp_path / "whole" / case), weights(cut / case)) == 0


@pytest.mark.slow
def test_sharded_weights_sample_with_the_native_generator(tmp_path: Path, kind: Kind) -> None:
    """Whole while sampling; ranks whose responses end at different steps do not wait for each other."""
    case = {"native": ["train.steps = 3", "train.prompts = 5"]}
    finished(1, tmp_path / "1", case, recorded=False)
    finished(2, tmp_path / "2", case, recorded=False, kind=kind)
    alone, together = (metrics(tmp_path / n / "native") for n in ("1", "2"))
    assert [line["prompts_hash"] for line in alone] == [line["prompts_hash"] for line in together]
    assert together[0]["reward"] == pytest.approx(alone[0]["reward"], abs=0.06)  # a token may flip by rounding
    assert max(line["sampler_mismatch"] for line in together) < 1e-4


@pytest.mark.slow
def test_two_sharded_ranks_in_bfloat16(tmp_path: Path, kind: Kind) -> None:
    """Computed in bfloat16, on float32 shards or master weights; with layers computed twice."""
    case = {"low": ["train.steps = 2", "policy.dtype = 'bfloat16'", "policy.gradient_checkpointing = True"]}
    finished(2, tmp_path, case, kind=kind)
    assert {x.dtype for x in weights(tmp_path / "low").values()} == {kind.dtype}
    assert all(line["grad_norm"] > 0 for line in metrics(tmp_path / "low"))


@pytest.mark.slow
def test_a_rank_that_fails_ends_the_run_with_its_cause(forks: None, tmp_path: Path) -> None:
    broken = {"broken": ["train.variant = @grpo()", "grpo.objective = @breaks_on_one_rank"]}
    process = torchrun(2, request_of(tmp_path, broken))
    assert process.returncode != 0
    assert "this rank is out of order" in process.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("ACCELERATE_MIXED_PRECISION", "bf16"), ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")]
)
def test_what_would_scale_the_loss_behind_our_back_is_refused(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that accelerate launch hands over in the environment."""
    monkeypatch.setenv(name, value)
    AcceleratorState._reset_state()
    try:
        with pytest.raises(GrpoLabError, match=r"mixed_precision must be 'no' .*gradient_accumulation_steps 1"):
            init()
    finally:
        monkeypatch.undo()
        AcceleratorState._reset_state()
        init()


# the parts by hand


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: Any) -> None:
        raise ImportError("DeepSpeed is not installed")

    monkeypatch.setattr("core.distributed.Accelerator", missing)
    with pytest.raises(GrpoLabError, match=r"DeepSpeed is not installed; for DeepSpeed, pip install 'grpo-lab\[deeps"):
        init()


def test_one_process_does_all() -> None:
    assert local_slice(5) == slice(0, 5)
    assert gather([1, 2]) == [1, 2]
    assert assign_by_cost("abc", [3, 1, 2]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("rank", "part", "hand"),
    [(0, slice(0, 1), ["c", None]), (1, slice(1, 3), ["d", "e"]), (2, slice(3, 5), ["a", "b"])],
)
def test_several_share_by_hand(
    rank: int, part: slice, hand: Sequence[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turns of cost 2, 2, 9, 3, 1: the 9 to the first, then 3 to the second, 2 and 2 to the third, 1 to the second."""

    class State:
        num_processes, process_index = 3, rank

    monkeypatch.setattr("core.distributed.PartialState", State)
    assert local_slice(5) == part
    assert assign_by_cost("abcde", [2, 2, 9, 3, 1]) == hand
