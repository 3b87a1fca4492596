"""The lens from Python: bias, variance and cost of gradients on a policy small enough to enumerate."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from core import Part, Variant
from core.errors import GrpoLabError
from core.parts.arguments import checked, in_python
from core.parts.settings import COUNT, NOT_NEGATIVE
from experiments.lab.frames import data_frame, html_or_text
from experiments.lab.maths import variant_of
from experiments.lens.card import exact_to_json
from experiments.lens.exact import Exact, measure_all
from experiments.lens.off_policy import AGE, AGES, GROUP_SIZE, MISMATCH, OffPolicy, measure_off_policy
from experiments.lens.off_policy_card import off_policy_to_json, shown
from experiments.lens.on_turns import OnTurns, measure_on_turns
from experiments.lens.turns_card import shown_turns, turns_to_json

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
    variants = _variants(methods)
    try:
        measured = measure_all(
            variants, group_size=group_size, group_sizes=group_sizes, rollouts=rollouts, batches=batches, seed=seed
        )
    except GrpoLabError as error:
        raise GrpoLabError(in_python(str(error))) from None
    return Lens(measured)


@dataclass(frozen=True, eq=False, repr=False)
class OffPolicyLens:
    """What was measured of each variant with an older or a perturbed sampler; `measured` is the record behind it."""

    measured: OffPolicy

    def table(self) -> "DataFrame":
        """A row for each variant and age or mismatch; all numbers are exact.

        `nats_a_token`: KL(sampler || policy). `direction_bias`, `bias`: relative to |true|, after and before the best
        `scale`; the latter and `factor` where the aggregator divides by a constant. `variance`, `mse`: relative to
        |true|^2, for 1000 sampled tokens. `snr`: |E[g]|^2 / variance.
        """
        measured = self.measured
        rows = [
            {"variant": name, measured.kind: at, "nats_a_token": nats, **shown(numbers)}
            for name, by_distance in measured.numbers.items()
            for at, nats, numbers in zip(measured.at, measured.divergences, by_distance, strict=True)
        ]
        return data_frame(rows, ["variant", measured.kind])

    def plot(self) -> "Figure":
        """Bias and variance of each variant by age or mismatch, two panels of one figure."""
        from experiments.lens.figures import draw_off_policy

        return draw_off_policy(self.measured)

    def to_json(self) -> dict[str, Any]:
        """Everything measured, ready for `json.dumps`."""
        return off_policy_to_json(self.measured)

    def __repr__(self) -> str:
        return f"<off-policy lens on {', '.join(self.measured.numbers)}: .table(), .plot()>"

    def _repr_html_(self) -> str | None:
        """For notebooks: the table."""
        return html_or_text(lambda: str(self.table().to_html(index=False, float_format="{:.4g}".format)))


@checked(ages=AGE, mismatches=MISMATCH, group_size=COUNT, seed=NOT_NEGATIVE)
def lens_off_policy(
    methods: "str | Variant | Part | Sequence[str | Variant | Part]",
    *,
    ages: Sequence[int] | None = None,
    mismatches: Sequence[float] | None = None,
    group_size: int = GROUP_SIZE,
    seed: int = 0,
) -> OffPolicyLens:
    """Measure variants and advantage estimators on responses of an older or a perturbed sampler, exactly.

    `ages`: updates from the sampler to the policy, 0, 1, 2, 4, 8 and 16 where nothing is given; or `mismatches`: nats a
    token by which noise on the logits, keyed by `seed`, separates them. Batches are of one group. A variant with other
    parts is `dataclasses.replace(lab.variant("grpo"), correction=...)`.

    Raises GrpoLabError for an unknown name, for both ages and mismatches, and for what cannot be measured at
    `group_size`.
    """
    if ages is not None and mismatches is not None:
        raise GrpoLabError("lens_off_policy: give ages or mismatches, not both")
    kind: Literal["age", "mismatch"] = "mismatch" if mismatches is not None else "age"
    at: Sequence[float] = mismatches if mismatches is not None else AGES if ages is None else ages
    if not at:
        raise GrpoLabError(f"lens_off_policy: nothing to measure at: give {kind}s")
    try:
        measured = measure_off_policy(_variants(methods), kind=kind, at=at, group_size=group_size, seed=seed)
    except GrpoLabError as error:
        raise GrpoLabError(in_python(str(error))) from None
    return OffPolicyLens(measured)


@dataclass(frozen=True, eq=False, repr=False)
class TurnsLens:
    """What was measured of each variant on episodes with a tool; `measured` is the record behind it."""

    measured: OnTurns

    def table(self) -> "DataFrame":
        """A row for each variant and reward of a further turn; all numbers are exact.

        `push`: towards another turn, mean over prompts, in units of the scale at the reward that the other numbers are
        of; `true_push`: that of the true gradient. `angle`: to it, in degrees; the rest as in `lens_off_policy`.
        """
        measured = self.measured
        true = measured.true_pushes
        rows = [
            {
                "variant": name,
                "turn_reward": paid,
                "push": float(push.mean()),
                "true_push": float(true[paid].mean()),
                **shown_turns(measured.numbers[name]),
            }
            for name, pushes in measured.pushes.items()
            for paid, push in pushes.items()
        ]
        return data_frame(rows, ["variant", "turn_reward"])

    def plot(self) -> "Figure":
        """Bias and variance of each variant, and its push by what a further turn pays, three panels of one figure."""
        from experiments.lens.figures import draw_turns

        return draw_turns(self.measured)

    def to_json(self) -> dict[str, Any]:
        """Everything measured, ready for `json.dumps`."""
        return turns_to_json(self.measured)

    def __repr__(self) -> str:
        return f"<lens on turns of {', '.join(self.measured.numbers)}: .table(), .plot()>"

    def _repr_html_(self) -> str | None:
        """For notebooks: the table."""
        return html_or_text(lambda: str(self.table().to_html(index=False, float_format="{:.4g}".format)))


@checked(group_size=COUNT)
def lens_turns(
    methods: "str | Variant | Part | Sequence[str | Variant | Part]",
    *,
    turns: Literal[2, 3] = 2,
    group_size: int | None = None,
) -> TurnsLens:
    """Measure variants and advantage estimators on episodes of up to so many turns with a tool, exactly.

    `group_size` is 4 for two turns and 3 for three where it is None; batches are of one group. What asks for a critic's
    values is measured with the true ones and with 0.

    Raises GrpoLabError for an unknown name, and for what cannot be measured at `group_size` or on episodes.
    """
    try:
        measured = measure_on_turns(_variants(methods), turns=turns, group_size=group_size)
    except GrpoLabError as error:
        raise GrpoLabError(in_python(str(error))) from None
    return TurnsLens(measured)


def _variants(methods: "str | Variant | Part | Sequence[str | Variant | Part]") -> list[Variant]:
    listed = list(methods) if isinstance(methods, Iterable) and not isinstance(methods, str) else [methods]
    if not listed:
        raise GrpoLabError("nothing to measure: name a variant or an advantage")
    return [variant_of(each).resolved() for each in listed]
