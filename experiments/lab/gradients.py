"""The lens from Python: bias, variance and cost of gradients on a policy small enough to enumerate."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core import Part, Variant
from core.errors import GrpoLabError
from core.parts.arguments import checked, in_python
from core.parts.settings import COUNT, NOT_NEGATIVE
from experiments.lab.frames import data_frame, html_or_text
from experiments.lab.maths import variant_of
from experiments.lens.card import exact_to_json
from experiments.lens.exact import Exact, measure_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

NUMBERS = ("scale", "factor", "bias_squared", "direction_bias_squared", "cosine", "variance", "mse", "snr", "tokens")


@dataclass(frozen=True, eq=False, repr=False)
class Lens:
    """What was measured of each variant; `measured` is the record behind it."""

    measured: Exact

    def table(self) -> "DataFrame":
        """A row for each variant and group size; every number has a column `NAME_error` with its standard error.

        `scale`: the best c in E[g] = c * true. `bias_squared`, `direction_bias_squared`: relative to |true|^2, before
        and after the best scale. `variance`, `mse`: relative, for 1000 sampled tokens. `snr`: |E[g]|^2 / variance.
        """
        rows = []
        for name, by_size in self.measured.measured.items():
            for size, measurement in by_size.items():
                row: dict[str, Any] = {"variant": name, "group_size": size}
                for number in NUMBERS:
                    if number in measurement.numbers:
                        estimate = measurement.numbers[number]
                        row |= {number: estimate.value, f"{number}_error": estimate.error}
                rows.append(row)
        return data_frame(rows, ["variant", "group_size"])

    def plot(self) -> "Figure":
        """Difficulty, length, variance and bias of each variant, four panels of one figure."""
        from experiments.lens.figures import draw_exact

        return draw_exact(self.measured)

    def to_json(self) -> dict[str, Any]:
        """Everything measured, with errors, ready for `json.dumps`."""
        return exact_to_json(self.measured)

    def __repr__(self) -> str:
        return f"<lens on {', '.join(self.measured.measured)}: .table(), .plot()>"

    def _repr_html_(self) -> str | None:
        """For notebooks: the table at the main group size."""
        return html_or_text(self._html)

    def _html(self) -> str:
        table = self.table()
        main = table[table["group_size"] == self.measured.group_size]
        html: str = main.to_html(index=False, float_format="{:.4g}".format)
        return html


@checked(group_size=COUNT, group_sizes=COUNT, rollouts=COUNT, batches=COUNT, seed=NOT_NEGATIVE)
def lens(
    methods: "str | Variant | Part | Sequence[str | Variant | Part]",
    *,
    group_size: int = 8,
    group_sizes: Sequence[int] = (2, 4, 8, 16),
    rollouts: int = 64,
    batches: int = 2000,
    seed: int = 0,
) -> Lens:
    """Measure variants and advantage estimators, by name or as they are, against the true gradient.

    `rollouts` responses in a batch, as near as complete groups allow; `batches` of them for each group size. No
    training, no model; about ten seconds a method.

    Raises GrpoLabError for an unknown name, and for what cannot be measured at `group_size`.
    """
    listed = list(methods) if isinstance(methods, Iterable) and not isinstance(methods, str) else [methods]
    if not listed:
        raise GrpoLabError("nothing to measure: name a variant or an advantage")
    variants = [variant_of(each).resolved() for each in listed]
    try:
        measured = measure_all(
            variants, group_size=group_size, group_sizes=group_sizes, rollouts=rollouts, batches=batches, seed=seed
        )
    except GrpoLabError as error:
        raise GrpoLabError(in_python(str(error))) from None
    return Lens(measured)
