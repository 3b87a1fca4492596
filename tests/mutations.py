"""Break every formula of `estimators/` in every small way, and see whether a test notices: docs/mutations.md.

    make mutations

Mutants are those of cosmic-ray (numbers, comparisons, signs, arithmetic, booleans), and those that matter for tensors:
a `torch.where` without its condition, a method call (`clamp`, `masked_fill`, `detach`, ...) left out, a keyword
argument (`correction=...`) dropped. Each is compiled in a process of its own, forked from one that has imported torch,
and counts as noticed when a test fails; nothing is written to the sources. Why a survivor changes nothing stands in
mutations.toml.
"""

import argparse
import ast
import importlib.machinery
import json
import os
import re
import resource
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import CodeType
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
REASONS: Final = Path(__file__).with_suffix(".toml")
PAGE: Final = ROOT / "docs" / "mutations.md"
SECONDS: Final = 120
"""Of processor time for a mutant's tests: on a busy machine none is taken to hang."""
IDLE_SECONDS: Final = 3600
"""By the clock, for one that waits for ever."""
DROPPABLE: Final = ("clamp", "masked_fill", "detach", "double", "abs", "to", "square", "sqrt", "flip", "expand_as")
IGNORED: Final = ("RemoveDecorator", "ExceptionReplacer")
"""Without its decorator a function is no part, and everything fails."""
OPPOSITE: Final = {
    "Add": "Sub",
    "Sub": "Add",
    "Mul": "Div",
    "Div": "Mul",
    "Pow": "Mul",
    "BitAnd": "BitOr",
    "BitOr": "BitAnd",
}
"""Of an arithmetic operator's replacements the one nearest to it; most others are refused by tensors."""
BOUNDARY: Final = {
    "Gt": ("GtE", "LtE"),
    "GtE": ("Gt", "Lt"),
    "Lt": ("LtE", "GtE"),
    "LtE": ("Lt", "Gt"),
    "Eq": ("NotEq",),
    "NotEq": ("Eq",),
    "Is": ("IsNot",),
    "IsNot": ("Is",),
}
"""Of a comparison's replacements the one at its boundary and its opposite."""
TESTS: Final = ("tests/estimators/test_identities.py", "tests/variants")
DATA: Final = ("__init__", "limits")
"""Files without a formula."""
CONTRACTS: Final = "tests/experiments/check/test_every_part.py"
FIRST: Final = {
    "estimators/objectives/preference": ["test_preference"],
    "estimators/objectives/off_policy": ["test_off_policy_objectives"],
    "estimators/advantages/critic": ["test_values", "test_token_advantages", "test_advantages"],
    "estimators/values": ["test_values"],
    "estimators/preferences": ["test_preferences"],
    "estimators/objectives": ["test_more_objectives", "test_sequence_objectives", "test_objectives", "test_identities"],
    "estimators/advantages/group": ["test_advantages", "test_batch_advantages"],
    "estimators/advantages": ["test_batch_advantages", "test_token_advantages", "test_advantages"],
    "estimators/aggregators": ["test_aggregators"],
    "estimators/kl": ["test_kl"],
    "estimators/corrections": ["test_corrections", "test_rejections"],
    "estimators/rejections": ["test_rejections"],
    "estimators/segments": ["test_aggregators", "test_rejections"],
    "estimators/credit": ["test_credit"],
    "estimators/selections": ["test_selections"],
    "estimators/filters": ["test_filters"],
    "estimators/shaping": ["test_shaping", "test_identities"],
    "estimators/ratios": ["test_more_objectives", "test_sequence_objectives", "test_kl"],
}
"""Where a mistake shows soonest."""


@dataclass(frozen=True)
class Mutant:
    """One change: its file, line, and that line before and after."""

    path: str
    line: int
    kind: str
    before: str
    after: str
    place: int = 1
    """Where the same text changes in the same way more than once: the how-manieth this is."""

    @property
    def key(self) -> str:
        """What names it in mutations.toml, whatever its line number."""
        return f"{self.path}: {self.before} -> {self.after}" + (f" (place {self.place})" if self.place > 1 else "")


def mutants(path: Path) -> Iterator[tuple[Mutant, str]]:
    """Every mutant of a file, with its whole source; each different text once."""
    source = path.read_text()
    seen, places = {source}, Counter[str]()
    for kind, text in [*_cosmic_ray(source), *_tensors(source)]:
        mutant = _named(path, kind, source, text)
        if text not in seen and "/, " not in mutant.after:
            seen.add(text)
            places[mutant.key] += 1
            yield replace(mutant, place=places[mutant.key]), text


def _cosmic_ray(source: str) -> Iterator[tuple[str, str]]:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    for name in sorted(operator_names()):
        short, operator_class = name.split("/")[-1], get_operator(name)
        family, old, new = [*short.split("_"), "", ""][:3]
        if short in IGNORED or operator_class.arguments():
            continue
        if family == "ReplaceBinaryOperator" and OPPOSITE.get(old) != new:
            continue
        if family == "ReplaceUnaryOperator" and old != "Delete":
            continue
        if family == "ReplaceComparisonOperator" and new not in BOUNDARY.get(old, ()):
            continue
        operator = operator_class()
        places = sum(1 for node in ast_nodes(get_ast(source)) for _ in operator.mutation_positions(node))
        for occurrence in range(places):
            text = mutate_code(source, operator, occurrence)
            if text is not None:
                yield short, text


def _tensors(source: str) -> Iterator[tuple[str, str]]:
    """Conditions forgotten, calls left out, keyword arguments dropped."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr == "where" and len(node.args) == 3:
            for kept in node.args[1:]:
                yield "ForgetCondition", _replaced(source, node, kept)
        if node.func.attr in DROPPABLE:
            yield "LeaveOutCall", _replaced(source, node, node.func.value)
        for keyword in node.keywords:
            smaller = ast.Call(node.func, node.args, [k for k in node.keywords if k is not keyword])
            yield "DropKeyword", _replaced(source, node, smaller)


def _replaced(source: str, old: ast.expr, new: ast.expr) -> str:
    lines = source.splitlines(keepends=True)
    assert old.end_lineno is not None
    # positions count bytes of UTF-8
    head = lines[old.lineno - 1].encode()[: old.col_offset].decode()
    tail = lines[old.end_lineno - 1].encode()[old.end_col_offset :].decode()
    return "".join([*lines[: old.lineno - 1], head + f"({ast.unparse(new)})" + tail, *lines[old.end_lineno :]])


def _named(path: Path, kind: str, source: str, text: str) -> Mutant:
    old, new = source.splitlines(), text.splitlines()
    first = next(i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    last = 1
    while last <= min(len(old), len(new)) - first and old[-last] == new[-last]:
        last += 1
    before, after = (" ".join(x.strip() for x in lines[first : len(lines) - last + 1]) for lines in (old, new))
    return Mutant(str(path.relative_to(ROOT)), first + 1, kind, before, after)


def outcome_of(mutant: Mutant, text: str) -> int:
    """Fork, and run the tests on the mutated source until one fails; the child's process id."""
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    mutated, plain = str(ROOT / mutant.path), importlib.machinery.SourceFileLoader.get_code

    def get_code(loader: Any, name: str) -> CodeType | None:
        if loader.path == mutated:
            return compile(text, mutated, "exec", dont_inherit=True)
        return plain(loader, name)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign, assignment]
    import pytest

    first = next(files for start, files in FIRST.items() if mutant.path.startswith(start))
    # plain asserts: modules that the parent imported cannot be rewritten, and only the outcome is wanted
    options = ["-x", "-q", "--no-header", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist"]
    kind = mutant.path.split("/")[1].removesuffix(".py").rstrip("s")
    kind = {"value": "value_loss", "rejection": "correction"}.get(kind, kind)
    # what several kinds rest on, or no part does, has no contracts of its own
    contracts = [CONTRACTS] if kind in ("ratio", "preference", "segment") else ["-k", f"{kind}-", CONTRACTS]
    stages = ([f"tests/estimators/{name}.py" for name in ("test_defaults", *first)], [*TESTS], contracts)
    code = 0
    for stage in stages:
        code = code or int(pytest.main([*options, *stage]))
    os._exit(min(code, 9))


def run(
    found: Sequence[tuple[Mutant, str]], workers: int, save: Callable[[dict[Mutant, str]], None]
) -> dict[Mutant, str]:
    """`killed` or `survived` for every mutant; `save` is told now and then what is known."""
    from rich.progress import Progress

    outcomes: dict[Mutant, str] = {}
    alive: dict[int, tuple[Mutant, float]] = {}
    waiting = list(reversed(found))
    with Progress() as bar:
        task = bar.add_task("mutants", total=len(found))
        while waiting or alive:
            while waiting and len(alive) < workers:
                mutant, text = waiting.pop()
                alive[outcome_of(mutant, text)] = mutant, time.monotonic()
            for child, (mutant, started) in list(alive.items()):
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    outcomes[mutant] = "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
                elif time.monotonic() - started > IDLE_SECONDS:
                    os.killpg(child, 9)
                    os.waitpid(child, 0)
                    outcomes[mutant] = "killed"  # it never ends: noticed
                else:
                    continue
                del alive[child]
                if len(outcomes) % 20 == 0:
                    save(outcomes)
                left = sum(o == "survived" for o in outcomes.values())
                bar.update(task, advance=1, description=f"mutants, {left} survive")
            time.sleep(0.02)
    return outcomes


def reasons_for(survivors: Sequence[Mutant]) -> dict[Mutant, str]:
    """Why survivors change nothing: the first entry of mutations.toml whose pattern is found in the mutant's key."""
    entries = tomllib.loads(REASONS.read_text())["equivalent"]
    found = {m: next((e["why"] for e in entries if re.search(e["pattern"], m.key)), None) for m in survivors}
    return {mutant: why for mutant, why in found.items() if why}


def page(outcomes: dict[Mutant, str], reasons: dict[Mutant, str], waiting: Counter[str]) -> str:
    """docs/mutations.md."""
    total, survivors = Counter(m.path for m in outcomes), [m for m, o in outcomes.items() if o == "survived"]
    left = Counter(m.path for m in survivors)
    rows = [
        f"| `{path}` | {total[path]} | {total[path] - left[path]} | {left[path]} | {waiting[path] or ''} |"
        for path in sorted(total.keys() | waiting.keys())
    ]
    lines = [
        "<!-- Generated by `make mutations`. Do not edit; reasons stand in tests/mutations.toml. -->",
        "",
        "# Mutations",
        "",
        "The formulas of `estimators/` are broken in small ways, one change at a time, and the tests are run: "
        "cosmic-ray's operators (numbers, comparisons, signs, arithmetic, booleans), and for tensors a forgotten "
        "`torch.where`, a call left out, a keyword argument dropped.",
        "",
        f"**{len(outcomes)} mutants run, {len(outcomes) - len(survivors)} noticed, {len(survivors)} survive.** "
        "Why these change nothing that a test could see; `unexplained` ones are open:",
        "",
        "| file | run | noticed | survive | not run yet |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]
    for path in sorted(left):
        lines += [f"## {path}", ""]
        for mutant in sorted((m for m in survivors if m.path == path), key=lambda m: m.line):
            reason = reasons.get(mutant, "**unexplained**")
            lines += [f"- line {mutant.line}, {mutant.kind}: `{mutant.before}` becomes `{mutant.after}`. {reason}", ""]
    return "\n".join(lines).rstrip() + "\n"


def save(file: Path, outcomes: dict[Mutant, str]) -> None:
    """Write outcomes as JSON, for `--again`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([{"mutant": asdict(m), "outcome": o} for m, o in outcomes.items()], indent=1))


def main() -> int:
    """Mutate, test, and write the page; 1 if a survivor is not explained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="files whose path contains this; writes no page")
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="only what is new or unexplained since an earlier run's JSON"
    )
    parser.add_argument(
        "--publish", action="store_true", help="with --again: run nothing, write the page from the file"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "mutations.json", metavar="FILE")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    os.environ["HYPOTHESIS_PROFILE"] = "quick"
    preload()
    before: dict[Mutant, str] = {}
    if options.again:
        before = {Mutant(**entry["mutant"]): entry["outcome"] for entry in json.loads(options.again.read_text())}
    files = [f for f in sorted((ROOT / "estimators").rglob("*.py")) if options.only in str(f) and f.stem not in DATA]
    everything = [pair for file in files for pair in mutants(file)]
    known = {mutant.key: outcome for mutant, outcome in before.items()}
    explained = {m.key for m in reasons_for([m for m, o in before.items() if o == "survived"])}
    found = [pair for pair in everything if known.get(pair[0].key) != "killed" and pair[0].key not in explained]
    if options.publish:
        found = []
    intact = Mutant(str(files[0].relative_to(ROOT)), 0, "none", "", "")
    if found and run([(intact, files[0].read_text())], 1, lambda _: None)[intact] != "survived":
        print("the tests fail on the code as it is: mend them first")
        return 2
    outcomes = run(found, options.workers, lambda known: save(options.out, known))
    fresh = {mutant.key: outcome for mutant, outcome in outcomes.items()}
    outcomes = {m: (known | fresh)[m.key] for m, _ in everything if m.key in known | fresh}
    waiting = Counter(m.path for m, _ in everything if m not in outcomes)
    save(options.out, outcomes)
    left = [m for m, o in outcomes.items() if o == "survived"]
    reasons = reasons_for(left)
    for mutant in left:
        if mutant not in reasons:
            print(f"{mutant.path}:{mutant.line} {mutant.kind}\n  - {mutant.before}\n  + {mutant.after}")
    print(f"{len(outcomes)} mutants, {len(left)} survive, {len(left) - len(reasons)} unexplained")
    if not options.only:
        PAGE.write_text(page(outcomes, reasons, waiting))
    return int(len(reasons) < len(left))


def preload() -> None:
    """Import everything that is slow and not mutated, once, before the forks."""
    import accelerate  # noqa: F401
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import core.environments.tasks
    import core.generation
    import core.loop.providers.shipped
    import core.loop.train  # noqa: F401

    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())
