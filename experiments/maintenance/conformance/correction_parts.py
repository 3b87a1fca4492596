"""The table of corrections of the sampler's mismatch: what each reference has for each of ours."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from core import Batch
from experiments.maintenance.conformance import openrlhf_reference as openrlhf
from experiments.maintenance.conformance import trl_reference as trl
from experiments.maintenance.conformance import verl_reference as verl
from experiments.maintenance.conformance.cases import ALL, EMPTY, HOLES, PLAIN
from experiments.maintenance.conformance.comparison import Comparison, Settings
from experiments.maintenance.conformance.rows import correction


def corrections() -> list[Comparison]:
    """Corrections of the mismatch between sampler and trainer."""
    return [*_truncated(), *_normalized(), *_masked(), *_rejections()]


def _truncated() -> list[Comparison]:
    """Factors that are bounded."""
    return [
        correction(
            "token_truncated",
            "TRL",
            "token_truncate",
            _trl_ratio("token_truncate", 0.5, 2.0),
            floor=0.5,
            cap=2.0,
            flavours=ALL,
        ),
        correction(
            "token_truncated",
            "verl",
            "token, threshold 2.0",
            lambda b: verl.correction(b, "token", 2.0),
            cap=2.0,
            flavours=ALL,
        ),
        correction(
            "token_truncated",
            "OpenRLHF",
            "token, clip",
            lambda b: openrlhf.correction(b, "token", "clip", 0.5, 5.0),
            floor=0.5,
            cap=5.0,
            flavours=ALL,
        ),
        correction(
            "sequence_truncated",
            "TRL",
            "sequence_truncate",
            _trl_ratio("sequence_truncate", 0.5, 2.0),
            floor=0.5,
            cap=2.0,
            flavours=ALL,
        ),
        correction(
            "sequence_truncated",
            "verl",
            "sequence, threshold 2.0",
            lambda b: verl.correction(b, "sequence", 2.0),
            cap=2.0,
            flavours=[PLAIN, HOLES],
        ),
    ]


def _normalized() -> list[Comparison]:
    """Bounded factors over their mean."""
    step = "Its mean is over the rollout, ours over the optimizer step; here one step takes the whole rollout."
    return [
        correction(
            "normalized",
            "verl",
            f"{level}, threshold 2.0, rollout_is_batch_normalize",
            partial(verl.correction, level=level, threshold=2.0, rollout_is_batch_normalize=True),
            level=level,
            cap=2.0,
            flavours=(*ALL, EMPTY) if level == "token" else (PLAIN, HOLES, EMPTY),
            note=step,
        )
        for level in ("token", "sequence")
    ]


def _rejections() -> list[Comparison]:
    """Rules that only take tokens or responses out: all of verl's, and its presets of two of them.

    The bounds of k1 are unlike each other's inverse, so that a ratio turned over would show.
    """
    return [
        *(_rejection("token", k, bounds) for k, bounds in (("k1", (0.8, 1.5)), ("k2", 0.02), ("k3", 0.02))),
        *(_rejection("sum", k, bounds) for k, bounds in (("k1", (0.5, 4.0)), ("k2", 0.1), ("k3", 0.1))),
        *(_rejection("mean", k, bounds) for k, bounds in (("k1", (0.9, 1.02)), ("k2", 0.01), ("k3", 0.01))),
        *(_rejection("max", k, bounds) for k, bounds in (("k2", 0.5), ("k3", 0.5))),
        _rejection("mean", "k1", (0.999, 1.001)),
        _rejection("token", "k1", 1.25),
    ]


def _rejection(over: str, estimator: str, bounds: float | tuple[float, float]) -> Comparison:
    """One rule of verl's with these bounds: the largest value, or of ratios both ends."""
    rule = f"token_{estimator}" if over == "token" else f"seq_{over}_{estimator}"
    low, high = bounds if isinstance(bounds, tuple) else (None, bounds)
    spelt = str(high) if low is None else f"{low}_{high}"
    ends: Settings = {"high": high} if low is None else {"high": high, "low": low}
    return correction(
        "rejection",
        "verl",
        f"rollout_rs='{rule}', threshold {spelt}",
        partial(verl.rejected, rule=rule, bounds=spelt),
        estimator=estimator,
        over=over,
        **ends,
        flavours=(*ALL, EMPTY),
    )


def _masked() -> list[Comparison]:
    """Factors that are 0 outside of bounds."""
    band = "It needs a lower bound above 0."
    inverse = "It bounds sampler over trainer; tokens it rejects also leave the denominators."
    return [
        correction("token_masked", "TRL", "token_mask", _trl_ratio("token_mask", None, 3.0), high=3.0, flavours=ALL),
        correction(
            "token_masked",
            "verl",
            "token, threshold 0.5_3.0",
            lambda b: verl.correction(b, "token", "0.5_3.0"),
            low=0.5,
            high=3.0,
            flavours=ALL,
            note=band,
        ),
        correction(
            "token_masked",
            "OpenRLHF",
            "token, mask",
            lambda b: openrlhf.correction(b, "token", "mask", 0.5, 5.0),
            low=0.5,
            high=5.0,
            flavours=ALL,
        ),
        correction(
            "sequence_masked", "TRL", "sequence_mask", _trl_ratio("sequence_mask", None, 3.0), high=3.0, flavours=ALL
        ),
        correction(
            "sequence_masked",
            "verl",
            "sequence, threshold 0.5_3.0",
            lambda b: verl.correction(b, "sequence", "0.5_3.0"),
            low=0.5,
            high=3.0,
            flavours=ALL,
            note=band,
        ),
        correction(
            "geometric_mean_masked",
            "verl",
            "rejection seq_mean_k1, token weights",
            lambda b: verl.correction(
                b, "token", 1e30, rollout_rs="seq_mean_k1", rollout_rs_threshold=f"{1 / 1.1}_{1 / 0.9}"
            ),
            low=0.9,
            high=1.1,
            note=inverse,
        ),
        correction(
            "geometric_mean_masked",
            "OpenRLHF",
            "seq, mask",
            lambda b: openrlhf.correction(b, "seq", "mask", 0.9, 1.1),
            low=0.9,
            high=1.1,
        ),
    ]


def _trl_ratio(mode: str, low: float | None, high: float | None) -> Callable[[Batch], Tensor]:
    def call(batch: Batch) -> Tensor:
        bounds = {"mode": mode, "clip_min": low, "clip_max": high}
        return trl.rollout(trl.grpo(batch, correction=bounds), batch)["importance_sampling_ratio"]

    return call
