"""The pages say what the code says: generated ones, names of files and functions, commands, and figures in prose."""

import argparse
import ast
import contextlib
import importlib.util
import inspect
import io
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from safetensors import safe_open

import core.loop.metrics
from core import (
    ADVANTAGES,
    AGGREGATORS,
    CORRECTIONS,
    CREDITS,
    FILTERS,
    KLS,
    OBJECTIVES,
    SELECTIONS,
    SHAPINGS,
    VALUE_LOSSES,
    VARIANTS,
)
from core.errors import GrpoLabError
from core.model.loading import embedded_models
from core.store.files import read_json
from experiments.cli.main import main, make_parser
from experiments.lens.shipped import FIGURES
from experiments.maintenance.catalogue import PAGE, page
from experiments.maintenance.plan import PICTURE, picture, read_layers, title
from experiments.study.configs import find_config
from experiments.study.designs import DESIGNS
from tests.core.environments.rewards import test_logic_pairs, test_math
from tests.core.environments.rewards.code_pairs import PROBLEMS
from tests.core.environments.sandbox.hostile import ATTACKS, FORGERIES, STREAMS
from tests.core.model import test_soundness

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def text_of(place: str) -> str:
    return (ROOT / place).read_text("utf-8")


# --- generated pages --------------------------------------------------------------------------------------------------


def test_the_page_of_variants_is_the_registrys() -> None:
    """Written anew by `python -m experiments.maintenance.catalogue`, which also measures."""
    assert PAGE.read_text() == page(read_json(FIGURES))


def test_the_fidelity_matrix_names_every_part_and_variant() -> None:
    """Written anew by `make conformance`."""
    text = PAGE.with_name("fidelity.md").read_text()
    maths = (ADVANTAGES, OBJECTIVES, AGGREGATORS, VALUE_LOSSES, KLS, CORRECTIONS, CREDITS, SELECTIONS)
    registries = (*maths, FILTERS, SHAPINGS, VARIANTS)
    # other tests register parts of their own
    parts = [part for registry in registries for part in registry.values()]
    shipped = [part.name for part in parts if part.module.split(".")[0] in ("estimators", "variants")]
    assert len(shipped) > 100
    assert [name for name in shipped if f"| `{name}` |" not in text] == []


def keys_of(function: Callable[..., object], with_key: str) -> set[str]:
    """The keys of the dictionary in a function's source that has this one."""
    dictionaries = [node for node in ast.walk(ast.parse(inspect.getsource(function))) if isinstance(node, ast.Dict)]
    found = [{key.value for key in node.keys if isinstance(key, ast.Constant)} for node in dictionaries]
    return {str(key) for keys in found if with_key in keys for key in keys}


def test_the_page_of_metrics_names_every_column_that_the_loop_writes() -> None:
    """But for what objectives log, which is any name."""
    written = {
        "seconds",
        *keys_of(core.loop.metrics.step_record, "reward"),
        *keys_of(core.loop.metrics.age_record, "age"),
        *keys_of(core.loop.metrics._kl_record, "kl"),
        *keys_of(core.loop.metrics.value_record, "value_bias"),
        *keys_of(core.loop.metrics.line_of, "sampled_tokens"),
    }
    assert len(written) > 30
    assert written - set(re.findall(r"`(\w+)`", PAGE.with_name("metrics.md").read_text())) == set()


# --- the house --------------------------------------------------------------------------------------------------------


def test_the_picture_of_the_plan_is_the_plans() -> None:
    """Drawn anew by `python -m experiments.maintenance.plan`."""
    assert PICTURE.read_text() == picture(*read_layers())


def test_a_room_that_the_picture_has_no_words_for_is_named() -> None:
    plan, narrow = read_layers()
    with pytest.raises(GrpoLabError, match="core/attic/"):
        picture([*plan, ["core/attic/"]], narrow)


def test_the_table_of_folders_has_every_room_once_and_places_to_begin() -> None:
    table = text_of("CONTRIBUTING.md").split("## Adding a part")[0]
    rows = re.findall(r"^\| `([^`]+)` \| .* \| (`.*`) \|$", table, re.M)
    assert sorted(room for room, _ in rows) == sorted(title(room) for floor in read_layers()[0] for room in floor)
    places = [(room, place) for room, begin in rows for place in re.findall(r"`([^`]+)`", begin)]
    assert [place for _, place in places if not (ROOT / place).is_file()] == []
    assert [place for room, place in places if not place.startswith(room.removesuffix("*.py"))] == []


@cache
def names_in(place: str) -> frozenset[str]:
    """Functions and classes of a file, and the methods of its classes as `Class.method`."""
    found = set()
    for node in ast.parse(text_of(place)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return frozenset(found)


def missing_places(text: str) -> list[str]:
    """What stands as `file.py` or `file.py: name` in a page and is not there; NAME.py stands for any."""
    missing = []
    for place, name in re.findall(
        r"`((?:core|docs|estimators|variants|experiments|tests)/[a-z\d_/]+\.py)(?:: ([\w.]+))?`", text
    ):
        if not (ROOT / place).is_file() or (name and name not in names_in(place)):
            missing.append(f"{place}: {name}" if name else place)
    return missing


def test_every_file_and_function_that_a_page_names_is_there() -> None:
    assert {
        str(each): missing_places(each.read_text("utf-8")) for each in PAGES if missing_places(each.read_text())
    } == {}
    assert len(re.findall(r"`[\w/]+\.py: [\w.]+`", text_of("docs/architecture.md"))) > 40
    assert missing_places("`core/nowhere.py`, `core/errors.py: Nothing`, `core/loop/source.py: Source.sample`") == [
        "core/nowhere.py",
        "core/errors.py: Nothing",
    ]


def requirements(extra: str | None = None) -> Iterator[Requirement]:
    """What pyproject.toml asks for, or an extra of it; extras of extras too."""
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    for text in project["optional-dependencies"][extra] if extra else project["dependencies"]:
        each = Requirement(text)
        if each.name == "grpo-lab":
            yield from (one for other in each.extras for one in requirements(other))
        else:
            yield each


def test_the_constraints_are_exact_and_within_what_the_project_asks_for() -> None:
    lines = [line for line in text_of("constraints.txt").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    versions = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    assert len(versions) == len(lines)
    asked = [*requirements(), *requirements("test")]
    assert len(asked) > 20
    assert [str(each) for each in asked if versions.get(canonicalize_name(each.name), "0") not in each.specifier] == []


def anchors_of(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and others make them."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def dead_links(page: Path) -> list[str]:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors_of(target))):
            dead.append(link)
    return dead


def test_every_link_leads_somewhere(tmp_path: Path) -> None:
    assert {str(each): dead_links(each) for each in PAGES if dead_links(each)} == {}
    wrong = tmp_path / "page.md"
    wrong.write_text(
        "# One head, two\n[a](#one-head-two) [b](#none) [c](page.md) [d](none.md) [e](https://example.com/#x)"
    )
    assert dead_links(wrong) == ["#none", "none.md"]


# --- commands ---------------------------------------------------------------------------------------------------------


COMMANDS = next(a.choices for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
MENTIONED = {f"grpolab {name}" for name in COMMANDS} | {"grpolab COMMAND"}


def commands_in(text: str) -> Iterator[str]:
    """Commands of ours in bash blocks, indented lines and code spans, without what goes before them."""
    text = re.sub(r" \\\n *", " ", text)
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    blocks = [block for language, block in fenced if language in ("", "bash")]
    for line in "\n".join([*blocks, *re.findall(r"^    \S.*$", text, re.M)]).splitlines():
        command = re.sub(r"^(\w+=\S+ )*(\.venv/bin/)?", "", line.strip())
        if command.split(" ")[0] in ("grpolab", "make", "python"):
            yield command
    prose = " ".join(re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S).split())
    # one that is named only, as `grpolab lens`, has no arguments
    yield from (span for span in re.findall(r"`((?:grpolab|make|python) [^`[]+)`", prose) if span not in MENTIONED)


def fault_of(command: str) -> str | None:
    """Why a command that a page shows cannot be given: nothing is run."""
    program, *words = shlex.split(command, comments=True)
    if program == "make":
        targets = re.findall(r"^([\w./-]+):", text_of("Makefile"), re.M)
        return next((f"no target {word}" for word in words if word not in targets), None)
    if program == "python":
        ours = words[:1] == ["-m"] and words[1].startswith(("experiments.", "tests."))
        return f"no module {words[1]}" if ours and importlib.util.find_spec(words[1]) is None else None
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            options = make_parser().parse_args(words)
        for file in getattr(options, "config", None) or []:
            if not re.search(r"^(mine|second_try|study|plain|chat|FILE)\.gin$|^STUDY$", file):
                find_config(file)
    except SystemExit:
        return said.getvalue()
    except GrpoLabError as error:
        return str(error)
    return None


def test_every_command_that_a_page_shows_is_a_real_one() -> None:
    shown = {str(page.relative_to(ROOT)): list(commands_in(page.read_text("utf-8"))) for page in PAGES}
    faults = {f"{name}: {command}": fault_of(command) for name, commands in shown.items() for command in commands}
    assert {command: fault for command, fault in faults.items() if fault} == {}
    assert len(shown["README.md"]) >= 25
    assert len(faults) >= 80
    for wrong in (
        "grpolab compare -c demo --sedes 8",
        "grpolab train -c no_such",
        "make coffee",
        "python -m tests.none",
    ):
        assert fault_of(wrong)


def test_the_readme_puts_the_environment_on_the_path_before_its_first_command_and_names_every_command() -> None:
    text = text_of("README.md")
    assert text.index("source .venv/bin/activate") < re.search(r"^grpolab ", text, re.M).start()  # type: ignore[union-attr]
    assert ".venv/bin/grpolab" not in text
    assert [name for name in COMMANDS if not re.search(rf"(`|grpolab ){name}\b", text)] == []


def test_the_readmes_difference_of_two_variants_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "grpo_trl", "--diff", "grpo"]) == 0
    assert f"```\n{capsys.readouterr().out.rstrip()}\n```" in text_of("README.md")


def test_the_table_of_parameter_equivalents_is_what_the_command_shown_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = text_of("docs/paradigms.md")
    (command,) = (each for each in commands_in(text) if "--sizes" in each)
    assert main([*shlex.split(command)[1:], "--json"]) == 0
    columns = {"ppo": "ppo", "grpo, KL": "grpo", "remax, rloo": "remax", "dpo": "dpo"}
    models = json.loads(capsys.readouterr().out)
    assert models["remax"] == models["rloo"]

    def row(name: str, values: Sequence[str]) -> str:
        return f"| {name} | {' | '.join(values)} |".replace("|  |", "| |").replace("|  |", "| |")

    sizes = {name: [models[column][name] for column in columns.values()] for name in ("policy", "critic", "reference")}
    sizes["reward model"] = [models[column]["reward"] for column in columns.values()]
    wanted = [row(name, [f"{value / 1e9:g}B" if value else "" for value in values]) for name, values in sizes.items()]
    equivalents = [f"**{models[column]['equivalents'] / 1e9:g}B**" for column in columns.values()]
    wanted.append(row("**parameter equivalents**", equivalents))
    for name, kind in (
        ("weights, bfloat16", "weights"),
        ("masters, float32", "masters"),
        ("gradients, float32", "gradients"),
        ("AdamW's moments", "moments"),
    ):
        wanted.append(row(name, [f"{models[column]['bytes'][kind] / 2**30:.1f} GiB" for column in columns.values()]))
    together = [f"{sum(models[column]['bytes'].values()) / 2**30:.1f} GiB" for column in columns.values()]
    wanted.append(row("together", together))
    assert [line for line in wanted if line not in text] == []


# --- figures in prose -------------------------------------------------------------------------------------------------

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def pairs(kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text_of(f"tests/core/environments/rewards/{kind}_pairs.jsonl").splitlines()]


def labelled() -> dict[str, tuple[int, int, int]]:
    """By row of the table in docs/rewards.md: pairs, right ones in whatever form, right ones that are refused."""
    math, logic = pairs("math"), pairs("logic")
    right, wrong = (sum(len(getattr(p, kind)) for p in PROBLEMS.values()) for kind in ("right", "wrong"))
    return {
        "`math_answer`": (len(math), sum(pair["lenient"] for pair in math), len(test_math.MISSES)),
        "`code_tests`": (right + wrong, right, 0),
        "`truth_table`, `who_is_who`": (
            len(logic),
            sum(pair["lenient"] for pair in logic),
            len(test_logic_pairs.MISSED),
        ),
    }


def calibrated() -> tuple[int, int, int]:
    """Rows of docs/calibration.md, the studies behind them, and the most of one row."""
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| ([\d,]+) \|", text_of("docs/calibration.md"), re.M)
    studies = {simulated: int(number.replace(",", "")) for simulated, number in rows}
    return len(rows), sum(studies.values()), max(studies.values())


def broken_inputs() -> int:
    """What `make fuzz` tries: every test of a file walks through its CASES."""
    total = 0
    for file in (ROOT / "tests" / "fuzz").glob("test_*.py"):
        text = file.read_text("utf-8")
        (cases,) = re.findall(r"^CASES: Final = ([\d_]+)$", text, re.M)
        total += int(cases) * text.count("range(0, CASES, CHUNK)")
    return total


def figures() -> Iterator[tuple[str, str]]:
    """A page, and a piece of a sentence in it with its figures as they are now."""
    of_verifier = labelled()
    wrong = sum(number - right for number, right, _ in of_verifier.values())
    hostile = len(ATTACKS) + len(FORGERIES) + len(STREAMS)
    yield "README.md", f"Of {wrong:,} labelled wrong answers and {hostile} hostile programs none is accepted"
    yield "docs/rewards.md", f"{hostile} hostile programs (fork bombs"
    for name, (number, right, refused) in of_verifier.items():
        share = f"{refused} ({100 * refused / right:.1f} %)" if refused else "0"
        yield "docs/rewards.md", f"| {name} | {number:,} | {right:,} | 0 | {share} |"
    made = sum(pair.get("by") == "construction" for pair in pairs("math"))
    yield "docs/rewards.md", f"{made} of the mathematical pairs are written by"

    methods = {file.stem for file in (ROOT / "variants").glob("*.py")} - {"__init__"}
    named = {"grpo", "dr_grpo", "dapo", "rloo", "remax", "reinforce_pp", "gspo", "cispo"}
    assert named < methods <= set(VARIANTS)
    yield "README.md", f"REINFORCE++, GSPO, CISPO and {len(methods - named)} more are short files"
    stems = [file.stem for file in (ROOT / "experiments" / "configs" / "claims").glob("*.gin")]
    claims = sum(not stem.endswith("_2") for stem in stems)  # the second declaration of each is of the same claim
    yield "README.md", f"{NUMBERS[claims].title()} claims of the literature"
    verified = NUMBERS[len(list((ROOT / "experiments" / "configs").glob("rlvr_*.gin")))]
    yield "README.md", f"{verified.title()} small models of the package learn mathematics, logic and code"
    yield "docs/rewards.md", f"The {NUMBERS[len(embedded_models())]} embedded models are small"
    (arms,) = re.findall(r"^compare.variants = \[(.*)\]$", text_of("experiments/configs/demo.gin"), re.M)
    (seeds,) = re.findall(r"^SEEDS \?= (\d+)$", text_of("Makefile"), re.M)
    yield "README.md", f"{NUMBERS[arms.count('@')]} variants x {NUMBERS[int(seeds)]} seeds on the embedded model"
    with safe_open(ROOT / "core/assets/embedded/model.safetensors", "pt") as file:
        parameters = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118 - no mapping
    yield "README.md", f"a {parameters / 1e6:.1f}M-parameter character model"
    yield "docs/paradigms.md", f"Embedded model ({parameters / 1e6:.2f}M parameters"
    designs = [f"`{name}`" for name in (*DESIGNS, "random")]
    assert all(name in text_of("README.md") for name in designs)

    rows, studies, most = calibrated()
    yield "docs/calibration.md", f"**{rows} rows over {studies:,} studies, none outside its band.**"
    yield (
        "docs/statistics.md",
        f"{studies:,} simulated studies were judged for {rows} rates, and none of these is outside",
    )
    yield "CONTRIBUTING.md", f"by up to {most:,} studies a row"
    yield "CONTRIBUTING.md", f"{broken_inputs():,} broken inputs"

    table = re.findall(r"^\| `estimators/[^|]*\| (\d+) \| (\d+) \| (\d+) \|", text_of("docs/mutations.md"), re.M)
    run, noticed, survive = (sum(map(int, column)) for column in zip(*table, strict=True))
    yield "docs/mutations.md", f"**{run} mutants run, {noticed} noticed, {survive} survive.**"
    assert len(re.findall(r"^- line ", text_of("docs/mutations.md"), re.M)) == survive == run - noticed

    refused = test_soundness.test_flat_models_that_packing_would_change_are_refused.pytestmark[0].args[1]
    yield "docs/models.md", f"and {len(refused)} configurations that are refused"
    (sums,) = re.findall(r"(\d+) were made with .* (\d+) pass and (\d+) are refused", words_of("docs/models.md"))
    assert int(sums[0]) == int(sums[1]) + int(sums[2])


def words_of(place: str) -> str:
    """A page on one line."""
    return " ".join(text_of(place).split())


def test_figures_in_prose_are_as_counted() -> None:
    counted = list(figures())
    assert len(counted) >= 18
    assert [(place, sentence) for place, sentence in counted if sentence not in words_of(place)] == []
