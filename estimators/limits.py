"""Which values of a hyper-parameter make sense: a name means the same in every estimator."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from core.parts.registry import default_limits
from core.parts.settings import NOT_NEGATIVE, POSITIVE, SHARE, Range

LIMITS: Final[Mapping[str, Range]] = MappingProxyType(
    {
        "eps": NOT_NEGATIVE,
        "whiten_eps": NOT_NEGATIVE,
        "floor": NOT_NEGATIVE,
        "correction": SHARE,
        "gamma": SHARE,
        "gamma_high": SHARE,
        "omega": NOT_NEGATIVE,
        "coef": NOT_NEGATIVE,
        "lam": SHARE,
        "decay": SHARE,
        "share": SHARE,
        "buffer": Range(0, 1, "low"),
        "scale": POSITIVE,
        "reward_clip": POSITIVE,
        "clip": POSITIVE,
        "strength": NOT_NEGATIVE,
        "penalty": NOT_NEGATIVE,
        "eps_low": NOT_NEGATIVE,
        "eps_high": NOT_NEGATIVE,
        "ratio_cap": Range(1),
        "cap": POSITIVE,
        "threshold_low": NOT_NEGATIVE,
        "threshold_high": NOT_NEGATIVE,
        "beta": NOT_NEGATIVE,
        "kl_coef": NOT_NEGATIVE,
        "tau_positive": POSITIVE,
        "tau_negative": POSITIVE,
        "k_positive": NOT_NEGATIVE,
        "k_negative": NOT_NEGATIVE,
        "lambda_positive": NOT_NEGATIVE,
        "lambda_negative": NOT_NEGATIVE,
        "max_token_log_ratio": POSITIVE,
        "min_weight": POSITIVE,
        "max_log_weight": POSITIVE,
        "max_log_ratio": POSITIVE,
        "max_value": POSITIVE,
        "label_smoothing": Range(0, 0.5),
    }
)
"""Between which numbers each must lie."""

default_limits("estimators", LIMITS)
