"""The pages for who comes from another library name bindings that exist, with the defaults that they have."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from core import Variant
from core.errors import GrpoLabError
from core.parts.other_libraries import LIBRARIES
from core.parts.registry import REGISTRIES, Part
from experiments import lab
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


def options_of(page: str) -> dict[str, str]:
    """Their options in the tables that are headed by the library's name, with all that these say is ours."""
    said: dict[str, str] = {}
    text = (DOCS / f"{page}.md").read_text("utf-8")
    for table in re.findall(r"^\| (?:TRL|verl) \| here \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M):
        for line in table.splitlines():
            theirs, ours, *_ = line.removeprefix("| ").split(" | ")
            for name in re.findall(r"`([a-z][\w.]*)(?:=[^`]*)?`", theirs):
                said[name] = f"{said.get(name, '')} {ours}"
    return said


@pytest.mark.parametrize(("page", "library"), [("from_trl", "TRL"), ("from_verl", "verl")])
def test_errors_and_pages_say_the_same_of_each_option(page: str, library: str) -> None:
    known, said = LIBRARIES[library], dict[str, str]()
    for name, ours in options_of(page).items():
        ends = [end for end in known if name == end or name.endswith(f".{end}") or end.endswith(f".{name}")]
        assert ends, f"{page}: no error knows {name}"
        end = max(ends, key=len)
        said[end] = f"{said.get(end, '')} {ours}"
    for end, ours in said.items():
        assert all(f"`{each}" in ours for each in known[end]), f"{page}: {end} is {ours} there, but {known[end]}"
        assert bool(known[end]) != ("not here" in ours), f"{page}: {end}"
    # the page writes them in short: `_mode`
    assert known.keys() - said.keys() <= {"vllm_importance_sampling_mode", "vllm_importance_sampling_clip_max"}


@pytest.mark.parametrize(
    ("binding", "said"),
    [
        ("train.num_generations = 8", "'num_generations' is an option of TRL: here it is train.group_size"),
        ("grpo.beta = 0.1", "'beta' is an option of TRL: here it is grpo.kl_coef"),
        ("train.beta = 0.1", "'beta' is an option of TRL: here it is grpo.kl_coef"),
        ("epsilon_high = 0.28", "'epsilon_high' is an option of TRL: here it is clip.eps_high"),
        ("GRPOConfig.max_completion_length = 64", "'max_completion_length' is an option of TRL: here it is train.max_"),
        ("train.repetition_penalty = 1.1", "'repetition_penalty' is an option of TRL, and there is none like it here"),
        ("rollout.top_p = 0.9", "'rollout.top_p' is an option of verl: here it is train.top_p"),
        ("rollout.n = 8", "'rollout.n' is an option of verl: here it is train.group_size"),
        ("actor_rollout_ref.rollout.n = 8", "'rollout.n' is an option of verl: here it is train.group_size"),
        ("actor_rollout_ref.actor.optim.lr = 1e-6", "'lr' is an option of verl: here it is adamw.learning_rate"),
        ("critic.optim.lr = 1e-6", "'critic.optim.lr' is an option of verl: here it is critic.learning_rate"),
        ("kl_loss_coef = 0.001", "'kl_loss_coef' is an option of verl: here it is grpo.kl_coef"),
        ("actor.clip_ratio_high = 0.28", "'clip_ratio_high' is an option of verl: here it is dual_clip.eps_high"),
    ],
)
def test_a_binding_with_another_librarys_name_says_what_it_is_here(
    binding: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.gin"
    file.write_text(f"include 'embedded.gin'\n{binding}\n")
    for options, place in ((["-c", str(file)], f"{file}, line 2"), (["-c", "embedded", "-b", binding], "command line")):
        assert main(["compare", *options, "--dry-run"]) != 0
        error = " ".join(capsys.readouterr().err.split())
        assert said in error
        assert f"({place})" in error


def test_keywords_with_another_librarys_name_too() -> None:
    loose: Any = lab
    with pytest.raises(GrpoLabError, match=r"no setting 'beta': 'beta' is an option of TRL: here it is grpo\.kl_coef"):
        loose.variant("grpo", beta=0.1)
    with pytest.raises(GrpoLabError, match=r"no keyword 'num_generations': .* here it is train\.group_size"):
        loose.compare("demo", num_generations=4)


@pytest.mark.parametrize(("page", "variant"), [("from_trl", "grpo_trl"), ("from_verl", "grpo_verl")])
def test_the_difference_shown_is_what_the_command_prints(
    page: str, variant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", variant, "--diff", "grpo"]) == 0
    assert f"```text\n{capsys.readouterr().out.rstrip()}\n```" in (DOCS / f"{page}.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("compare.variants = [@grpo, @rloo]", "grpo.kl_coef and rloo.kl_coef ("),
        ("compare.variants = [@grpo, @sft]", "grpo.kl_coef ("),
        ("compare.arms = {'mine': 'train.variant = @remax()'}", "remax.kl_coef ("),
        ("train.variant = @rloo()", "rloo.kl_coef ("),
        ("train.variant = @sft()", "grpo_trl.kl_coef ("),
    ],
)
def test_a_setting_of_variants_is_named_with_those_in_use(
    lines: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, other = tmp_path / "mine.gin", tmp_path / "other.gin"
    file.write_text(f"include 'embedded.gin'\ntrain.beta = 0.1\n{lines}\n")
    other.write_text(f"include 'embedded.gin'\n{lines}\n")
    for options in (["-c", str(file)], ["-c", str(other), "-b", "train.beta = 0.1"]):
        assert main(["compare", *options, "--dry-run"]) != 0
        assert f"'beta' is an option of TRL: here it is {said}" in " ".join(capsys.readouterr().err.split())
