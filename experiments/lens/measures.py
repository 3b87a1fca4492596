"""Measures of a gradient estimator g whose true gradient t is known, with their Monte-Carlo errors.

    scale c          the least-squares c in E[g] = c t:  c = E[g].t / |t|^2
    cosine           between E[g] and t:                 c |t| / |E g|
    direction_bias   what no scale repairs:              |E[g] - c t| / |c t|
    factor           c times the constant k that the aggregator divides a response's token sum by, where it has one
    bias             at that constant:                   |k E[g] - t| / |t|
    variance         of g / c, relative to |t|^2:        tr Cov(g) / |c t|^2 * tokens / BUDGET
    mse              of g / c, relative to |t|^2:        variance + direction_bias^2
    snr              signal to noise, a power ratio:     |E g|^2 / (tr Cov(g) * tokens / BUDGET)

The last three are those of an average over as many batches as `BUDGET` sampled tokens allow: an estimator that
samples more than it uses has fewer.

|E g|^2 is estimated from products of different batches, (|sum g|^2 - sum |g|^2) / (n (n - 1)): the square of a mean
would have the noise in it, and give an unbiased estimator a bias.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

BUDGET: Final = 1000
"""Sampled tokens that variance, mean squared error and signal-to-noise are stated for."""
BLOCKS: Final = 50
SUMMED: Final = ("count", "gradient", "power", "along", "along_square", "tokens")


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error; the error is 0 for an enumerated one and NaN where there is none."""

    value: float
    error: float = 0.0

    def to_json(self) -> dict[str, float | None]:
        """Value and error, None where not finite."""
        pairs = {"value": self.value, "error": self.error}
        return {name: float(x) if np.isfinite(x) else None for name, x in pairs.items()}


@dataclass(frozen=True)
class Moments:
    """Moments of an estimator in units of the true gradient's length, exact or estimated without noise floor.

    Scalars, or arrays of one shape.
    """

    along: Any
    """E[g].t / |t|^2."""
    along_square: Any
    """Its square."""
    square: Any
    """|E g|^2 / |t|^2."""
    power: Any
    """E |g|^2 / |t|^2."""
    tokens: Any
    """Sampled tokens of a batch, all that was thrown away included."""

    def numbers(self, constant: float | None) -> dict[str, Any]:
        """The measures of this module; `direction_bias` and `bias` as squares, whose estimates may be below 0."""
        noise = (self.power - self.square) * self.tokens / BUDGET
        with np.errstate(divide="ignore", invalid="ignore"):
            direction = (self.square - self.along_square) / self.along**2
            variance = noise / self.along**2
            numbers = {
                "scale": self.along,
                "cosine": self.along / np.sqrt(self.square),
                "direction_bias_squared": direction,
                "variance": variance,
                "mse": variance + direction,
                "snr": self.square / noise,
                "tokens": self.tokens,
            }
        if constant is not None:
            numbers["factor"] = constant * self.along
            numbers["bias_squared"] = constant**2 * self.square - 2 * constant * self.along + 1
        return numbers


@dataclass(frozen=True)
class Sums:
    """Sums over batches from which moments come, kept block by block: the first axis is the block."""

    count: Array
    gradient: Array
    """[blocks, D]."""
    power: Array
    along: Array
    along_square: Array
    tokens: Array
    direction: Array
    """[D]: the true gradient, of length 1; the unit of all that is above is its true length."""

    @staticmethod
    def of(gradients: Array, true: Array, tokens: Array) -> "Sums":
        """One block: gradients [n, D] of n batches, the true gradient [D], and tokens [n]."""
        square = float(true @ true)
        along = gradients @ true / square
        return Sums(
            count=np.array([float(len(gradients))]),
            gradient=gradients.sum(0, keepdims=True) / square**0.5,
            power=np.array([(gradients**2).sum() / square]),
            along=np.array([along.sum()]),
            along_square=np.array([(along**2).sum()]),
            tokens=np.array([tokens.sum()]),
            direction=true / square**0.5,
        )

    @staticmethod
    def concat(parts: Sequence["Sums"]) -> "Sums":
        """Several blocks of one policy."""
        return replace(parts[0], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in SUMMED})

    def total(self) -> "Sums":
        """All blocks as one."""
        return replace(self, **{name: getattr(self, name).sum(0, keepdims=True) for name in SUMMED})

    def without_each(self) -> "Sums":
        """All blocks but one, for each."""
        return replace(self, **{name: getattr(self, name).sum(0) - getattr(self, name) for name in SUMMED})

    def moments(self) -> Moments:
        """Moments of each block's batches; every square from products of different batches."""
        n, pairs = self.count, self.count * (self.count - 1)
        return Moments(
            along=self.along / n,
            along_square=(self.along**2 - self.along_square) / pairs,
            square=((self.gradient**2).sum(-1) - self.power) / pairs,
            power=self.power / n,
            tokens=self.tokens / n,
        )


def estimates(sums: Sums, constant: float | None) -> dict[str, Estimate]:
    """Each number over all blocks, with its jackknife error over blocks.

    The jackknife underestimates the error of a square whose true value is near 0, because leaving out a block barely
    moves it: its error, and that of numbers derived from it, is at least that of noise alone.
    """
    whole, without = sums.total().moments().numbers(constant), sums.without_each().moments().numbers(constant)
    means = sums.gradient / sums.count[:, None]
    residuals = means - means @ sums.direction[:, None] * sums.direction
    with np.errstate(divide="ignore", invalid="ignore"):  # a scale of 0: nothing was learned about a prompt
        direction = noise_error(residuals) / whole["scale"][0] ** 2
        floors = {"direction_bias_squared": direction, "mse": direction}
        floors["cosine"] = 0.5 * abs(whole["cosine"][0]) ** 3 * direction
    if constant is not None:
        floors["bias_squared"] = noise_error(constant * means - sums.direction)
    return {
        name: Estimate(float(value[0]), float(np.fmax(jackknife_error(without[name]), floors.get(name, 0.0))))
        for name, value in whole.items()
    }


def noise_error(blocks: Array) -> float:
    """Standard error of the mean product of two different blocks' vectors [J, D], if their expectation is 0."""
    J = len(blocks)
    products = (blocks @ blocks.T)[~np.eye(J, dtype=bool)]
    return float(np.sqrt(2 * (products**2).mean() / (J * (J - 1))))


def jackknife_error(without_each: Array) -> float:
    """Standard error from the values without each of J blocks, [J]; NaN where one of them is not finite."""
    J = len(without_each)
    with np.errstate(invalid="ignore"):
        return float(np.sqrt((J - 1) / J * ((without_each - without_each.mean()) ** 2).sum()))
