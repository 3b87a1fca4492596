"""Whether the libraries that grpo-lab asks for are there, in versions that it takes."""

import platform
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Final

from experiments.doctor.finding import CAVEAT, FAILS, WORKS, Finding
from experiments.doctor.visit import Visit

NAME: Final = "libraries"
ENGINES: Final = ("vllm", "deepspeed")
"""Their names are listed where they are installed, though their pins are an environment's own."""
_REQUIREMENT: Final = re.compile(r"([\w.-]+)(?:\[[^\]]*\])?\s*([^;]*)(?:;(.*))?")
_BOUND: Final = re.compile(r"(>=|<=|==|<|>)\s*([\d.]+)")


def check_libraries(_: Visit) -> Iterator[Finding]:
    """Compare what is installed with what the package's own metadata asks for."""
    found: dict[str, str] = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    missing: list[str] = []
    old: list[tuple[str, str]] = []
    new: list[tuple[str, str]] = []
    for name, bounds, is_optional in _asked_for():
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            if not is_optional:
                missing.append(f"{name}{bounds}")
            continue
        if position := outside(found[name], bounds):
            (old if position == "below" else new).append((f"{name} {found[name]}", f"{name}{bounds}"))
    seen = ", ".join(f"{name} {found[name]}" for name in ("python", "torch", "transformers") if name in found)
    if missing or old:
        wrong = [f"{name} is missing" for name in missing] + [f"{have}, and {ask} is asked for" for have, ask in old]
        install = " ".join(f"'{each}'" for each in [*missing, *(ask for _, ask in old)])
        yield Finding(NAME, FAILS, f"{seen}; {'; '.join(wrong)}", f"pip install {install}.", {"versions": found})
    elif new:
        yield Finding(
            NAME,
            CAVEAT,
            f"{seen}; newer than what is tried: {', '.join(have for have, _ in new)}",
            f"If something fails, pip install {' '.join(repr(ask) for _, ask in new)}.",
            {"versions": found},
        )
    else:
        yield Finding(NAME, WORKS, seen, numbers={"versions": found})


def outside(installed: str, bounds: str) -> str | None:
    """`below` or `above` where a version is not within bounds such as `>=2.9,<2.14`; None where it is."""
    have = numbers_of(installed)
    for sign, bound in _BOUND.findall(bounds):
        limit = numbers_of(bound)
        length = max(len(have), len(limit))
        left, right = (tuple(each) + (0,) * (length - len(each)) for each in (have, limit))
        if left < right and sign in (">=", "==", ">"):
            return "below"
        if (left > right and sign in ("<=", "==")) or (left >= right and sign == "<"):
            return "above"
    return None


def numbers_of(text: str) -> tuple[int, ...]:
    """The release of a version: 2.13.0+cpu and 2.13.0rc1 are (2, 13, 0)."""
    return tuple(int(part) for part in re.match(r"[\d.]*", text)[0].split(".") if part)  # type: ignore[index]


def _asked_for() -> Iterator[tuple[str, str, bool]]:
    """Name, bounds and whether it is an extra's, of all that the installed package asks for; each name once."""
    asked: Mapping[str, tuple[str, bool]] = dict.fromkeys(ENGINES, ("", True))
    for line in reversed(requires("grpo-lab") or []):
        name, bounds, marker = _REQUIREMENT.match(line).groups()  # type: ignore[union-attr]
        is_optional = "extra" in (marker or "")
        if name != "grpo-lab" and not (is_optional and re.search("test|docs|mutations", marker)):
            asked = {**asked, name: (bounds.strip(), is_optional)}
    for name, (bounds, is_optional) in asked.items():
        yield name, bounds, is_optional
