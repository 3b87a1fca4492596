"""When, on what and how a run is evaluated."""

from dataclasses import dataclass
from typing import Final

from core.model.truncation import WHOLE, Truncation
from core.parts.contracts import setting
from core.parts.settings import COUNT, MANY, NOT_NEGATIVE, POSITIVE, SHARE, Range

TRUNCATION: Final = {"top_p": Range(0, 1, "low"), "top_k": NOT_NEGATIVE, "min_p": SHARE}
"""Limits of the settings that cut distributions down, of evaluations and of training."""


@dataclass(frozen=True)
class EvaluationSettings:
    """When and on what a run is evaluated. The questions belong to the study (`seed`), the noise to the run's seed."""

    every: int
    questions: int
    samples: int
    temperature: float
    seed: int
    split: str | None
    final_samples: int | None = None
    keep_models: bool | None = None
    surprise: bool = False
    ema_lag: float | None = None
    truncation: Truncation = WHOLE

    def final_steps(self, steps: int) -> tuple[int, ...]:
        """The steps of the evaluations, of a run of so many, whose mean is its final score.

        The last k of n, k = max(3, ceil(n / 10)), where n counts the one before training, which is itself never scored.
        """
        evaluated = [step for step in range(1, steps + 1) if step % self.every == 0 or step == steps]
        return tuple(evaluated[-max(3, -(-(len(evaluated) + 1) // 10)) :])

    def samples_at(self, step: int, steps: int) -> int:
        """Samples a question at a step of a run of so many, of the first suite."""
        scored = self.final_steps(steps)
        if self.final_samples is None or step not in scored:
            return self.samples
        return -(-self.final_samples // len(scored))


@setting(
    limits={
        "every": COUNT,
        "questions": COUNT,
        "samples": Range(2, MANY),
        "final_samples": COUNT,
        "temperature": POSITIVE,
        **TRUNCATION,
        "seed": NOT_NEGATIVE,
        "ema_lag": Range(0, 0.5, open="both"),
    }
)
def evaluation(
    *,
    every: int = 5,
    questions: int = 128,
    samples: int = 2,
    temperature: float = 1.0,
    seed: int = 0,
    split: str | None = None,
    final_samples: int | None = None,
    keep_models: bool | None = None,
    surprise: bool = False,
    ema_lag: float | None = None,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
) -> EvaluationSettings:
    """Evaluate at step 0, every `every` steps and at the end: each question once greedily and `samples` times sampled.

    `split` defaults to the task's test suites: the first every time, further ones at step 0 and at the end. Two samples
    or more are needed to separate sampling noise from the rest. `final_samples`: how many samples a question the final
    score rests on in all, spread over the last evaluations, of which it is the mean; what a run learns, and its first
    `samples` answers to a question, do not depend on it. `keep_models`: whether the models of the last two evaluations
    before the end are kept beside the final one, to be asked further questions; by default where they are small.
    `surprise`: also store of every sampled answer Σ_t (log p_t + H_t), how much likelier its tokens were than expected,
    which makes the metric `adjusted_accuracy`. `ema_lag`: answers are given by a moving average of the weights, which
    lags so large a share of the steps so far behind (`WeightAverage`) and is steadier than the weights of one step;
    what a run learns does not depend on it. `top_p`, `top_k`, `min_p`: samples are of distributions cut down so
    (`core.model.truncation.Truncation`); training's are its own.
    """
    truncation = Truncation(top_p, top_k, min_p)
    return EvaluationSettings(
        every, questions, samples, temperature, seed, split, final_samples, keep_models, surprise, ema_lag, truncation
    )
