"""4,000 broken configurations: each declares a study, or is one clear message."""

import re
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

import pytest

from core.parts.registry import REGISTRIES
from experiments.setup import import_parts
from experiments.study.configs import CONFIGS
from experiments.study.study import prepare_study
from tests.fuzz.outcome import listing, result_or_message
from tests.fuzz.text import VALUES, damage

CASES: Final = 4000
CHUNK: Final = 100
SHIPPED: Final = (
    "demo",
    "rlvr_math",
    "r1_zero",
    "claims/kl_place",
    "claims/dapo_leave_one_out",
    "claims/group_size",
    "paradigms/critic_alone",
)
NEUTRAL: Final = ("# a comment\n", "\n", "   \n")


@cache
def flat(name: str) -> str:
    """A shipped study as one text, without what it overrides of the files that it includes."""
    text = (CONFIGS / f"{name}.gin").read_text()
    while found := re.search(r"^include '(.*)'\n", text, re.MULTILINE):
        included = next(p for p in (CONFIGS / Path(name).parent / found[1], CONFIGS / found[1]) if p.is_file())
        text = text[: found.start()] + included.read_text() + text[found.end() :]
    # a statement begins in the first column, and goes on in lines that do not begin with a name
    statements = re.split(r"^(?=[A-Za-z#])", text, flags=re.MULTILINE)
    key_of = [re.match(r"[\w./]+(?=\s*=)", each) for each in statements]
    last = {key[0]: place for place, key in enumerate(key_of) if key}
    return "".join(
        each
        for place, (each, key) in enumerate(zip(statements, key_of, strict=True))
        if key is None or last[key[0]] == place
    )


@cache
def keys() -> tuple[str, ...]:
    """Every hyper-parameter that may be bound."""
    import_parts()
    parts = (part for registry in REGISTRIES.values() for part in registry.values())
    return tuple(sorted(f"{part.name}.{name}" for part in parts for name in part.defaults))


def broken(n: int) -> str:
    """The configuration of case `n`."""
    draw = Random(f"configuration {n}")
    text = flat(draw.choice(SHIPPED))
    lines = text.splitlines(keepends=True)
    kind = draw.random()
    if kind < 0.35:  # any key, any value
        return text + "".join(f"{draw.choice(keys())} = {draw.choice(VALUES)}\n" for _ in range(draw.choice((1, 1, 2))))
    if kind < 0.65:  # a key that is bound, another value
        bound = [place for place, line in enumerate(lines) if re.match(r"[\w.]+ = [^{\[(]*$", line)]
        place = draw.choice(bound)
        lines[place] = f"{lines[place].split(' = ')[0]} = {draw.choice(VALUES)}\n"
        return "".join(lines)
    if kind < 0.7:  # no owner, or another
        return text + f"{draw.choice(keys()).split('.')[draw.choice((0, 1))]} = {draw.choice(VALUES)}\n"
    return damage(text, draw)


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_a_broken_configuration_is_a_study_or_a_message(
    first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "study.gin"
    for n in range(first, first + CHUNK):
        file.write_text(broken(n))
        try:
            study, _ = result_or_message(lambda: prepare_study([str(file)], []).declaration)
            assert study is None or study["seeds"], "a study without seeds"
        except BaseException as error:
            raise AssertionError(f"configuration {n}:\n{file.read_text()}") from error
        assert list(listing(tmp_path)) == ["study.gin"], f"configuration {n} left something behind"


@pytest.mark.fuzz
@pytest.mark.parametrize("name", SHIPPED)
def test_what_says_the_same_declares_the_same(name: str, tmp_path: Path) -> None:
    draw = Random(f"neutral {name}")
    before = prepare_study([str(CONFIGS / f"{name}.gin")], []).hash
    lines = flat(name).splitlines(keepends=True)
    outside = 0
    text = ""
    for line in lines:
        if outside == 0 and draw.random() < 0.3:
            text += draw.choice(NEUTRAL)
        text += line
        outside += sum(line.count(c) for c in "([{") - sum(line.count(c) for c in ")]}")
    (tmp_path / "study.gin").write_text(text)
    assert prepare_study([str(tmp_path / "study.gin")], []).hash == before
