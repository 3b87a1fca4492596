"""The table of corrections of the sampler's mismatch: what each reference has for each of ours."""

from collections.abc import Callable

from torch import Tensor

from core import Batch
from experiments.maintenance.conformance import openrlhf_reference as openrlhf
from experiments.maintenance.conformance import trl_reference as trl
from experiments.maintenance.conformance import verl_reference as verl
from experiments.maintenance.conformance.cases import ALL, HOLES, PLAIN
from experiments.maintenance.conformance.comparison import Comparison
from experiments.maintenance.conformance.rows import correction


def corrections() -> list[Comparison]:
    """Corrections of the mismatch between sampler and trainer."""
    return [*_truncated(), *_masked()]


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
            lambda b: verl.correction(b, "token", 1e30, "seq_mean_k1", f"{1 / 1.1}_{1 / 0.9}"),
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
