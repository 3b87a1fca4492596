"""`grpolab lens`: measure the gradient of variants, and of an advantage estimator of one's own."""

import argparse
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from core.errors import GrpoLabError
from experiments.cli.lens_options import parse_distances, parse_sizes
from experiments.terminal import Console

if TYPE_CHECKING:
    from core import Variant
    from core.loop.recipe import Recipe

GROUP_SIZES: Final = (2, 4, 8, 16)
ROLLOUTS: Final = 64
BATCHES: Final = 2000


def run_lens(options: argparse.Namespace) -> int:
    """`grpolab lens`."""
    options.names = part_names(options.names)
    console = Console(stderr=options.json)
    if options.age is not None or options.mismatch is not None:
        return _off_policy(options, console)
    if options.turns is not None:
        return _on_turns(options, console)
    return _on_model(options, console) if options.model else _exact(options, console)


def part_names(targets: Sequence[str]) -> list[str]:
    """The given names; a Python file is imported and replaced by its advantages and variants."""
    from experiments.check.files import is_file, parts_of

    names: list[str] = []
    for target in targets:
        if not is_file(target):
            names.append(target)
            continue
        own = [part.name for part in parts_of(Path(target)) if part.kind in ("advantage", "variant")]
        if not own:
            raise GrpoLabError(f"{target} registers no advantage and no variant: the lens has nothing to measure in it")
        names += own
    return list(dict.fromkeys(names))


def _exact(options: argparse.Namespace, console: Console) -> int:
    from experiments.lens.card import exact_tables, exact_to_json
    from experiments.lens.exact import measure_all
    from experiments.lens.figures import exact_figure

    main = options.group_size if options.group_size is not None else 8
    variants, notes = _enumerable_variants(options, main)
    sizes = GROUP_SIZES if options.group_sizes is None else parse_sizes(options.group_sizes)
    with _advance(console) as advance:
        exact = measure_all(
            variants,
            group_size=main,
            group_sizes=sizes,
            rollouts=ROLLOUTS if options.rollouts is None else options.rollouts,
            batches=BATCHES if options.batches is None else options.batches,
            seed=options.seed,
            advance=advance,
        )
    content = exact_to_json(exact)
    return _conclude(options, console, "exact", content, exact_tables(exact), exact_figure(exact), notes)


def _off_policy(options: argparse.Namespace, console: Console) -> int:
    from experiments.lens.figures import off_policy_figure
    from experiments.lens.off_policy import AGE, AGES, GROUP_SIZE, MISMATCH, MISMATCHES, measure_off_policy
    from experiments.lens.off_policy_card import off_policy_tables, off_policy_to_json

    kind: Literal["age", "mismatch"] = "mismatch" if options.age is None else "age"
    _refuse_sampling(options, f"--{kind}")
    if kind == "age":
        at: Sequence[float] = parse_distances("--age", options.age, int, AGE) or AGES
    else:
        at = parse_distances("--mismatch", options.mismatch, float, MISMATCH) or MISMATCHES
    group_size = options.group_size if options.group_size is not None else GROUP_SIZE
    variants, notes = _enumerable_variants(options, group_size)
    with _advance(console) as advance:
        measured = measure_off_policy(
            variants, kind=kind, at=at, group_size=group_size, seed=options.seed, advance=advance
        )
    content, tables = off_policy_to_json(measured), off_policy_tables(measured)
    return _conclude(options, console, kind, content, tables, off_policy_figure(measured), notes)


def _on_turns(options: argparse.Namespace, console: Console) -> int:
    from experiments.lens.figures import turns_figure
    from experiments.lens.on_turns import GROUP_SIZES as BY_TURNS
    from experiments.lens.on_turns import check_on_turns, measure_on_turns
    from experiments.lens.turns_card import turns_tables, turns_to_json

    _refuse_sampling(options, "--turns")
    size = options.group_size if options.group_size is not None else BY_TURNS[options.turns]
    variants, notes = _enumerable_variants(options, size, check_on_turns)
    with _advance(console) as advance:
        measured = measure_on_turns(variants, turns=options.turns, group_size=size, advance=advance)
    content, tables = turns_to_json(measured), turns_tables(measured)
    return _conclude(options, console, "turns", content, tables, turns_figure(measured), notes)


def _refuse_sampling(options: argparse.Namespace, form: str) -> None:
    """Refuse options that say what is sampled, or what from, where everything is enumerated."""
    for name in ("model", "group_sizes", "rollouts", "batches"):
        if getattr(options, name) is not None:
            raise GrpoLabError(
                f"--{name.replace('_', '-')} has no effect with {form}: every batch of one group is enumerated, on a "
                "policy small enough for that; leave one of them out"
            )


def _enumerable_variants(
    options: argparse.Namespace, group_size: int, check: "Callable[[Variant, int], None] | None" = None
) -> "tuple[list[Variant], list[str]]":
    """What is to be measured on the enumerable policy, and remarks on what cannot be, by `check`."""
    import core.parts.registry as registry
    from core.parts.bindings import bindings_used
    from experiments.lens.named import named_variants
    from experiments.lens.step import check_variant
    from experiments.study.configs import (
        CONFIGS,
        find_config,
    )

    with registry.config([find_config(file) for file in options.config], options.bind, include_from=[CONFIGS]):
        checked = check or check_variant
        variants, notes = named_variants(options.names, options.parts, lambda made: checked(made, group_size))
        used = bindings_used()
    _refuse_unused(options.bind, used, variants)
    return variants, notes


def _on_model(options: argparse.Namespace, console: Console) -> int:
    from experiments.lens.card import model_tables, model_to_json
    from experiments.lens.figures import model_figure
    from experiments.lens.on_model import SPLITS, measure_on_model

    recipes, checkpoint = _recipes(options)
    with _progress(console) as bar:
        task = bar.add_task("sampling the pool", total=1 + len(recipes) * (2 * SPLITS + 1))
        measurements, accuracy = measure_on_model(
            recipes,
            seed=options.seed,
            checkpoint=checkpoint,
            advance=lambda name: bar.update(task, description=name, advance=1),
        )
    content = model_to_json(measurements, recipes[0], options.model, accuracy, options.seed)
    return _conclude(
        options, console, "model", content, model_tables(measurements, content), model_figure(measurements)
    )


def _recipes(options: argparse.Namespace) -> "tuple[list[Recipe], str | None]":
    """A recipe for each name, and the folder with the weights to measure at, where they are a run's."""
    import core.parts.registry as registry
    from core.model.loading import locate
    from core.parts.bindings import bindings_used
    from core.store.run_folder import RunStore
    from experiments.lens.named import named_variants
    from experiments.study.configs import (
        CONFIGS,
        build,
        find_config,
    )

    folder, text, files, checkpoint = Path(options.model), "", list(options.config), None
    if folder.is_dir():
        store = RunStore(folder)
        checkpoint = str(folder / "checkpoint")
        if not store.is_finished:
            raise GrpoLabError(
                f"--model {folder}: no finished run is there; give a run's folder, e.g. "
                "runs/demo/grpo/seed=0, or a config, e.g. embedded"
            )
        text = store.manifest["identity"]["config"]
    else:
        files.insert(0, options.model)
    sizes = {"prompts": options.prompts, "minibatches": 1, "epochs": 1}
    if options.group_size is not None:
        sizes["group_size"] = options.group_size
    with registry.config([find_config(file) for file in files], options.bind, text, include_from=[CONFIGS]):
        variants, _ = named_variants(options.names, options.parts)
        recipes = [build("train", variant=variant, **sizes) for variant in variants]
        used = bindings_used()
    _refuse_unused(options.bind, used, variants, [part for recipe in recipes for part in recipe.parts])
    locate(recipes[0].policy.model)
    return recipes, checkpoint


def _refuse_unused(
    bindings: Sequence[str], used: Collection[tuple[str, str]], variants: "Sequence[Variant]", parts: Sequence[Any] = ()
) -> None:
    """Refuse a binding of the command line that had no effect; a file may hold bindings for other commands."""
    import core.parts.registry as registry
    from core.parts.bindings import refuse_unused

    own = sorted(registry.keys_of(bindings))
    everything = [*parts, *(part for variant in variants for part in variant.parts)]
    refuse_unused(own, used, everything, [variant.name for variant in variants])


@contextmanager
def _advance(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar, moved by calling with a name, what is done and what there is in all."""
    with _progress(console) as bar:
        task = bar.add_task("measuring", total=None)
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)


def _progress(console: Console) -> Any:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def _conclude(
    options: argparse.Namespace,
    console: Console,
    form: str,
    content: dict[str, Any],
    tables: Sequence[Any],
    picture: str,
    notes: Sequence[str] = (),
) -> int:
    """Write the files, print the tables, remarks and the files' paths."""
    from core.store.files import (
        write_json,
        write_text,
    )

    if notes:
        content["remarks"] = [*content["remarks"], *notes]
    folder = Path(options.out)
    write_json(folder / f"{form}.json", content)
    write_text(folder / f"{form}.svg", picture)
    if options.json:
        print(json.dumps(content, indent=1))
    else:
        for table in [*tables, *notes]:
            console.print(table, highlight=False, markup=False)
    console.print(f"{folder / form}.json, {folder / form}.svg", soft_wrap=True, highlight=False)
    return 0
