"""The declaration in a study's record: what earlier versions left out, and what its entries may be."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from core.errors import near
from experiments.results.history import is_edited, looks_of, notes_of
from experiments.results.stored_run import AXES, StudyError
from experiments.statistics.runs import SCALARS

_DECLARED = ("metric", "budget", "baseline", "seeds")
DEFAULTS: Final[Mapping[str, Any]] = {
    "scalar": "final",
    "axis": "steps",
    "family": "baseline",
    "alpha": 0.05,
    "margin": 0.01,
    "margin_declared": False,
    "failures": "intersect",  # studies from before it was declared left failed runs out
    "floor": 0.0,
    "threshold": None,
    "questions": "fixed",
    "race": False,
    "looks": (),
    "claim": None,
    "data": {},
    "reevaluate": None,
    "reevaluate_models": None,
}
"""What declarations of earlier versions leave out."""
_NUMBER: Final = (int, float)
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("metric", "scalar", "axis", "baseline", "family", "failures", "questions"), (str,)),
    **dict.fromkeys(("alpha", "margin", "budget", "floor"), _NUMBER),
    "threshold": (*_NUMBER, type(None)),
    "seeds": (list,),
    "looks": (list, tuple),
    "race": (bool,),
    "claim": (dict, type(None)),
    "data": (dict,),
    "reevaluate": (int, type(None)),
    "reevaluate_models": (int, type(None)),
}
"""What a declaration's entries may be."""


def check_declaration(
    record: Mapping[str, Any], declaration: Mapping[str, Any], arms: Mapping[str, Any], file: Path, remedy: str
) -> None:
    """StudyError, with `remedy`, for a declaration that was edited, lacks an entry, or has an impossible one."""
    try:
        edited = is_edited(record)
        notes_of(record), looks_of(record)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise StudyError(f"{file}: the history of its declarations is incomplete ({error!r}); {remedy}") from None
    if edited:
        raise StudyError(f"{file}: the declaration is not the one that was hashed before the first run; {remedy}")
    for key in _DECLARED:
        if key not in declaration:
            raise StudyError(f"{file}: the declaration has no {key!r}; {remedy}")
    for key, kinds in _KINDS.items():
        if not _is_one(declaration[key], kinds):
            raise StudyError(f"{file}: {key} cannot be {declaration[key]!r:.60}; {remedy}")
    if any(type(seed) is not int or seed < 0 for seed in declaration["seeds"]):
        raise StudyError(f"{file}: seeds cannot be {declaration['seeds']!r:.60}; {remedy}")
    for arm, entries in arms.items():
        if not isinstance(entries, dict) or arm in ("", "..") or Path(arm).name != arm:
            raise StudyError(f"{file}: the arm {arm!r} is not recorded as one; {remedy}")
    for key, known in (("axis", AXES), ("scalar", SCALARS)):
        if declaration[key] not in known:
            raise StudyError(f"{file}: {key} {declaration[key]!r} is not one of {', '.join(known)}; {remedy}")
    if declaration["baseline"] not in arms:
        raise StudyError(f"{file}: the baseline is not an arm: {near(str(declaration['baseline']), arms)}")


def _is_one(value: object, kinds: tuple[type, ...]) -> bool:
    """Whether a value is of one of these kinds; numbers are finite, and True is none."""
    if isinstance(value, bool) or not isinstance(value, kinds):
        return isinstance(value, bool) and bool in kinds
    return not isinstance(value, int | float) or abs(value) <= sys.float_info.max
