"""docs/architecture.svg: the plan of the house, drawn from the floors that tests/test_layers.py enforces.

python -m experiments.maintenance.plan
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Final, TypeAlias

from core import GrpoLabError
from core.store.files import write_text

Plan: TypeAlias = Sequence[Sequence[str]]
"""The floors from the lowest up, and the rooms of each."""

ROOT: Final = Path(__file__).parents[2]
LAYERS: Final = ROOT / "tests" / "test_layers.py"
PICTURE: Final = ROOT / "docs" / "architecture.svg"

SUBJECTS: Final[Mapping[str, str]] = {
    "core": "errors, random keys, devices, processes",
    "core/parts/": "what a part is: registries, decorators, settings, Variant, Batch, Problem",
    "core/store/": "a run on disk: whole files, checksums, lock, checkpoints",
    "core/model/": "the policy: loading, packing, log-probabilities, optimizer, sharding",
    "core/generation/": "from prompts to responses: native sampler, vLLM",
    "core/loop/": "one run: rollout, scoring, loss, update, evaluation, metrics",
    "core/environments/": "tasks, rewards, sandbox, judges, data sets",
    "estimators/": "the maths: advantages, objectives, aggregators, KL, filters, ...",
    "variants/": "the methods: a short file each, composed of estimators",
    "experiments": "options, setup, terminal",
    "experiments/statistics/": "from scores to verdicts",
    "experiments/bases/": "how the small models were made",
    "experiments/check/": "the contract of every kind of part",
    "experiments/bridges/": "variants that train inside TRL and verl",
    "experiments/results/": "finished studies read from disk, and anybody's tables",
    "experiments/study/": "what is declared before the first run: arms, settings, identity",
    "experiments/report/": "the HTML report, its tables and figures",
    "experiments/plots/": "parts of a report as matplotlib axes, for papers and notebooks",
    "experiments/memory/": "forecast and measurement of memory",
    "experiments/lens/": "bias, variance and cost of a gradient",
    "experiments/launchers/": "where runs run: this machine, Ray, Slurm",
    "experiments/planning/": "the jobs of a study; --dry-run: cost and power",
    "experiments/lab/": "the door from Python",
    "experiments/cli/": "the commands, one file each",
    "experiments/feedback/": "preference pairs, reward models, judges, pass rates",
    "experiments/doctor/": "grpolab doctor: checks of a machine",
    "experiments/maintenance/": "for maintainers: conformance, benchmarks, generated pages",
}
"""A few words on every room."""

WIDTH, MARGIN, GAP, PAD, LINE = 700, 12, 8, 8, 15
LETTER = 6.3
"""Width of an average letter of the words, in pixels."""
INDENT = 205
"""Where the words begin in a room that has its floor for itself."""
STYLE: Final = """
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; font-size: 12px }
.name { font-family: ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; font-weight: 600 }
.page { fill: #ffffff } text { fill: #24292f } .faint { fill: #57606a } .arrow { stroke: #57606a; fill: none }
.room { stroke-width: 1.2 } .few { stroke-dasharray: 5 3 }
.core { fill: #e7f0fa; stroke: #4b7cb0 } .estimators { fill: #e6f5ea; stroke: #3f8f5b }
.variants { fill: #fdf3dc; stroke: #a87d1f } .experiments { fill: #f3ebfa; stroke: #8560ad }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117 } text { fill: #e6edf3 } .faint { fill: #9aa4af } .arrow { stroke: #9aa4af }
  .core { fill: #14263a; stroke: #5f94cc } .estimators { fill: #14301f; stroke: #53a873 }
  .variants { fill: #352a10; stroke: #c79a3a } .experiments { fill: #281c38; stroke: #a27fcc }
}
"""


def main() -> None:
    """Draw the picture anew."""
    write_text(PICTURE, picture(*read_layers()))
    print(f"wrote {PICTURE}")


def read_layers() -> tuple[Plan, frozenset[str]]:
    """`PLAN` of the test of layers, and the rooms that may use less than what is below them (`NARROW`)."""
    values = {}
    for statement in ast.parse(LAYERS.read_text("utf-8")).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            if name in ("PLAN", "NARROW"):
                values[name] = ast.literal_eval(statement.value)
    return values["PLAN"], frozenset(values["NARROW"])


def picture(plan: Plan, narrow: frozenset[str] = frozenset()) -> str:
    """The house as SVG, readable at 700 pixels: a floor a row, the lowest at the bottom, a room a box.

    Raises `GrpoLabError` for a room of which `SUBJECTS` says nothing, and for one that it knows and the plan does not.
    """
    rooms = [room for floor in plan for room in floor]
    if unlike := sorted(SUBJECTS.keys() ^ set(rooms)):
        raise GrpoLabError(
            f"{', '.join(unlike)}: PLAN in tests/test_layers.py and SUBJECTS in experiments/maintenance/plan.py do not "
            "have the same rooms: say in a few words what a new one is about, and remove one that is gone"
        )
    left, y = MARGIN + 22, MARGIN
    boxes: list[str] = []
    for floor in reversed(plan):
        # as wide as their names ask for
        free = WIDTH - MARGIN - left - GAP * (len(floor) - 1) - 2 * PAD * len(floor)
        shares = [len(title(room)) / sum(len(title(other)) for other in floor) for room in floor]
        widths = [2 * PAD + free * share for share in shares]
        words = [wrap(SUBJECTS[room], int((w - 2 * PAD) / LETTER)) for room, w in zip(floor, widths, strict=True)]
        is_line = len(floor) == 1 and len(words[0]) == 1 and len(words[0][0]) * LETTER <= widths[0] - INDENT - PAD
        height = 2 * PAD + LINE * (1 if is_line else 1 + max(map(len, words)))
        x: float = left
        for room, lines, width in zip(floor, words, widths, strict=True):
            kind = f"room {room.split('/')[0]}{' few' if room in narrow else ''}"
            boxes.append(f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" rx="5"/>')
            boxes.append(_words(title(room), x + PAD, y + PAD + 11, "name"))
            for number, line in enumerate(lines):
                at = (x + INDENT, y + PAD + 11) if is_line else (x + PAD, y + PAD + 11 + LINE * (1 + number))
                boxes.append(_words(line, *at))
            x += width + GAP
        y += height + GAP
    legend = "A room imports from floors below its own only; one with a dashed edge, from some of those or from none."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 24}" width="{WIDTH}" role="img" '
            'aria-label="The rooms of the project by floors: a room imports only from floors below its own">',
            "<!-- Generated by `python -m experiments.maintenance.plan` from tests/test_layers.py. Do not edit. -->",
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{y + 24}" rx="6"/>',
            *boxes,
            *_arrow(MARGIN + 8, MARGIN, y - GAP),
            _words(legend, left, y + 12, "faint"),
            "</svg>\n",
        ]
    )


def title(room: str) -> str:
    """What stands over a room: its folder, or the loose files of one."""
    return room if room.endswith("/") else f"{room}/*.py"


def _words(words: str, x: float, y: float, kind: str = "subject") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}">{escape(words)}</text>'


def _arrow(x: float, top: float, bottom: float) -> Iterator[str]:
    middle = (top + bottom) / 2
    yield f'<path class="arrow" d="M {x} {top} V {bottom} m -4 -7 l 4 7 l 4 -7"/>'
    yield (
        f'<text class="faint" x="{x - 4}" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 {x - 4} {middle})">imports</text>'
    )


if __name__ == "__main__":
    main()
