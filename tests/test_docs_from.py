"""The pages for who comes from another library name bindings that exist, with the defaults that they have."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from core import Variant
from core.parts.registry import REGISTRIES, Part
from experiments.cli.main import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = ("from_trl", "from_verl")
FIELDS = {each.name for each in fields(Variant)}
_SPAN = re.compile(r"`(@?)([a-z_]\w*)(?:\.(\w+))?(?: = ([^`]+?))?(?:\(\))?`(?: \(([^)]+)\))?")


def parts() -> dict[str, Part]:
    return {name: part for registry in REGISTRIES.values() for name, part in registry.items()}


def faults(cell: str) -> Iterator[str]:
    """What a cell says of bindings of ours that is not so."""
    known = parts()
    yield from (f"a variant has no '{each}'" for each in re.findall(r"`Variant\((\w+)=", cell) if each not in FIELDS)
    for at, name, parameter, bound, default in _SPAN.findall(cell):
        if name not in known:
            yield f"no part '{name}'"
        elif parameter and parameter not in known[name].defaults:
            yield f"'{name}' has no '{parameter}'"
        elif bound.startswith("@") and bound[1:].removesuffix("()") not in known:
            yield f"no part '{bound}'"
        elif default and parameter:
            real = known[name].defaults[parameter]
            said = bound[1:] if default == "default" else default
            if said != (real.name if isinstance(real, Part) else real) and not _equal(said, real):
                yield f"the default of {name}.{parameter} is {real!r}, not {said}"
        elif at and parameter:
            yield f"'@{name}.{parameter}' is no reference"


def _equal(said: str, real: Any) -> bool:
    try:
        return bool(ast.literal_eval(said) == real)
    except (ValueError, SyntaxError):
        return bool(said == real)


def rows(page: str) -> list[list[str]]:
    """The rows of the tables that have three columns: theirs, ours, what differs."""
    lines = re.findall(r"^\| (.*) \|$", (DOCS / f"{page}.md").read_text("utf-8"), re.M)
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    return [row for row in cells if row[1:2] != ["here"]]


@pytest.mark.parametrize("page", PAGES)
def test_every_binding_of_ours_is_there(page: str) -> None:
    listed = rows(page)
    assert len(listed) > 35
    assert {ours: list(faults(ours)) for _, ours, *_ in listed if list(faults(ours))} == {}


def test_what_is_not_so_is_found() -> None:
    assert list(faults("`grpo.kl_coef` (0.0), `clip.eps_low`, `grpo.kl = @k3` (default), `token_mean`, `@k1`")) == []
    assert list(
        faults(
            "`grpoo`, `grpo.kl_coeff`, `grpo.kl = @k9`, `clip.eps_low` (0.3), `grpo.kl = @k2` (default), `Variant(x=1)`"
        )
    ) == [
        "a variant has no 'x'",
        "no part 'grpoo'",
        "'grpo' has no 'kl_coeff'",
        "no part '@k9'",
        "the default of clip.eps_low is 0.2, not 0.3",
        "the default of grpo.kl is k3(), not k2",
    ]


@pytest.mark.parametrize(("page", "variant"), [("from_trl", "grpo_trl"), ("from_verl", "grpo_verl")])
def test_the_difference_shown_is_what_the_command_prints(
    page: str, variant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", variant, "--diff", "grpo"]) == 0
    assert f"```text\n{capsys.readouterr().out.rstrip()}\n```" in (DOCS / f"{page}.md").read_text("utf-8")
