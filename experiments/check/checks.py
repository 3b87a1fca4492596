"""What a check is: a name, and a function that takes a part and tests whether something holds of it."""

import pickle
import random
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from core import GrpoLabError, Part

State: TypeAlias = Literal["holds", "does not hold", "does not apply"]
Examine: TypeAlias = Callable[[Part], str | None]
"""Returns, perhaps with a finding, where something holds; raises `Broken` or `Inapplicable` where it does not."""
Call: TypeAlias = tuple[Callable[[], Any], Mapping[str, Tensor]]
"""A call of a part without arguments left to pass, and the tensors that it reads, by name."""


class Broken(Exception):  # noqa: N818 - a finding, not a mistake
    """Something does not hold; the message is the counterexample, `remedy` what mends this one, where that differs."""

    def __init__(self, counterexample: str, remedy: str = "") -> None:
        super().__init__(counterexample)
        self.remedy = remedy


class Inapplicable(Exception):  # noqa: N818
    """The check does not apply to this part; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """The result of one check of one part."""

    state: State
    reason: str = ""
    remedy: str = ""
    """Of a contract that does not hold."""


@dataclass(frozen=True)
class Check:
    """One statement about parts of a kind: a contract that must hold, or a property that is only reported."""

    kind: str
    name: str
    must: bool
    examine: Examine
    remedy: str = ""

    def __call__(self, part: Part) -> Outcome:
        """Check a part; an exception that it raises is an outcome too."""
        # warnings of a part on made-up batches would only confuse its user
        with warnings.catch_warnings(), _own_draws():
            warnings.simplefilter("ignore")
            try:
                return Outcome("holds", self.examine(part) or "")
            except Inapplicable as reason:
                return Outcome("does not apply", str(reason))
            except Broken as counterexample:
                return Outcome("does not hold", str(counterexample), counterexample.remedy or self.remedy)
            except Exception as error:  # whatever a user's part raises
                return Outcome("does not hold", _raised(error, part), self.remedy)


COPY_INPUTS = "work on a copy: x.clone(), or operations without a trailing underscore"


class Checks:
    """The checks of one kind of part, in the order in which they were written."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._checks: list[Check] = []

    def __iter__(self) -> Iterator[Check]:
        return iter(self._checks)

    def must(self, name: str, *, remedy: str) -> Callable[[Examine], Examine]:
        """Add a contract; `remedy` says how to mend a part that breaks it."""
        return self._adding(name, must=True, remedy=remedy)

    def reports(self, name: str) -> Callable[[Examine], Examine]:
        """Add a property, which a part may have or not."""
        return self._adding(name, must=False, remedy="")

    def pure(
        self, calls: Callable[[Part], Iterable[Call]], *, same_output: str, inputs_unchanged: str = COPY_INPUTS
    ) -> None:
        """Add the two contracts of a pure function, each with its remedy."""
        self.same_output(lambda part: (call for call, _ in calls(part)), remedy=same_output)
        self.inputs_unchanged(calls, remedy=inputs_unchanged)

    def same_output(self, calls: Callable[[Part], Iterable[Callable[[], Tensor]]], *, remedy: str) -> None:
        """Add the contract that a second call gives the same bits and touches no global generator."""

        @self.must("same input, same output", remedy=remedy)
        def check(part: Part) -> None:
            for call in calls(part):
                _repeats(call)

    def inputs_unchanged(self, calls: Callable[[Part], Iterable[Call]], *, remedy: str = COPY_INPUTS) -> None:
        """Add the contract that a call changes none of its inputs in place."""

        @self.must("inputs left alone", remedy=remedy)
        def check(part: Part) -> None:
            for call, inputs in calls(part):
                _unchanged(call, inputs)

    def axes(self, *, remedy: str) -> None:
        """Add the contract that the axes of a part can be filled in with its hyper-parameters."""

        @self.must("axes", remedy=remedy)
        def check(part: Part) -> None:
            try:
                part.describe()
            except (KeyError, IndexError, ValueError) as error:
                raise Broken(f"axes={dict(part.axes)} with hyper-parameters {part.defaults}: {error!r}") from error

    def _adding(self, name: str, *, must: bool, remedy: str) -> Callable[[Examine], Examine]:
        def add(examine: Examine) -> Examine:
            self._checks.append(Check(self.kind, name, must, examine, remedy))
            return examine

        return add


def _raised(error: Exception, part: Part) -> str:
    """Type and first line of an exception, and the line of the part's own file where it came from."""
    first = (str(error).strip().splitlines() or [""])[0]
    file = part.place.rpartition(":")[0]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    place = f" ({Path(file).name}:{lines[-1]})" if lines else ""
    # messages of our own errors already name the place and the remedy
    return first if isinstance(error, GrpoLabError) else f"raised {type(error).__name__}: {first}{place}"


def same(
    actual: Tensor, expected: Tensor, where: Tensor | None = None, *, given: str = "", tolerance: float = 1e-5
) -> None:
    """Raise `Broken` with the first place at which two tensors differ by more than rounding does.

    The tolerance is relative to the largest number expected, and absolute below 1.
    """
    if actual.shape != expected.shape:
        raise Broken(f"shape {list(actual.shape)} instead of {list(expected.shape)}{_given(given)}")
    f, e = actual.detach().double(), expected.detach().double()
    where = torch.ones_like(f, dtype=torch.bool) if where is None else where
    scale = max(1.0, float(e[where & e.isfinite()].abs().amax()) if (where & e.isfinite()).any() else 1.0)
    differ = where & ~((f - e).abs() <= tolerance * scale) & ~(f == e) & ~(f.isnan() & e.isnan())
    if differ.any():
        place = differ.nonzero()[0].tolist()
        raise Broken(f"at {place}: {f[tuple(place)]:.6g} instead of {e[tuple(place)]:.6g}{_given(given)}")


def finite(values: Tensor, where: Tensor | None = None, *, what: str = "value", given: str = "") -> None:
    """Raise `Broken` with the first number that is NaN or infinite."""
    bad = ~values.detach().isfinite() & (torch.ones_like(values, dtype=torch.bool) if where is None else where)
    if bad.any():
        place = bad.nonzero()[0].tolist()
        raise Broken(f"{what} {values[tuple(place)]:g} at {place}{_given(given)}")


def _repeats(call: Callable[[], Tensor]) -> None:
    """Raise `Broken` if a second call with the same input gives something else, or draws from a global generator."""
    before = _global_draws()
    first = call().detach().clone()
    second = call().detach()
    same(second, first, given="the second call with the same input", tolerance=0.0)
    if _global_draws() != before:
        raise Broken("drew from a global random generator")


def _global_draws() -> tuple[bytes, object, bytes]:
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), pickle.dumps(np.random.get_state())


@contextmanager
def _own_draws() -> Iterator[None]:
    """Global generators in a fixed state, and afterwards as they were: an outcome is the same every time."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed asks every device, and notes who asked
        torch.default_generator.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _unchanged(call: Callable[[], object], inputs: Mapping[str, Tensor]) -> None:
    """Raise `Broken` if a call changes one of these tensors in place."""
    before = {name: tensor.detach().clone() for name, tensor in inputs.items()}
    call()
    for name, tensor in inputs.items():
        same(tensor, before[name], given=f"{name} was changed in place", tolerance=0.0)


def numbers(values: Tensor) -> str:
    """A few numbers for a message."""
    shown = [f"{value:.4g}" for value in values.detach().flatten().tolist()]
    return " ".join(shown[:8]) + (" ..." if len(shown) > 8 else "")


def _given(text: str) -> str:
    return f" ({text})" if text else ""
