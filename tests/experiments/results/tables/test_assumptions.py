"""What a question about a table leaves open, and what is said about it."""

from experiments.results.tables.tables import Question, judge_table, read_rows


def test_scores_from_evaluations_at_other_steps_are_warned_of() -> None:
    steps = {"grpo": (0, 50, 80, 90, 100), "rloo": (0, 50, 100)}
    table = read_rows(
        {"arm": arm, "seed": seed, "step": step, "value": step / 200}
        for arm, of in steps.items()
        for seed in range(3)
        for step in of
    )

    def warnings(**options: float | str) -> tuple[str, ...]:
        return tuple(judge_table(table, Question("grpo", margin=0.02, **options)).warnings)  # type: ignore[arg-type]

    (warning,) = warnings()  # of one and the same line
    assert "same steps: 80, 90, 100 in grpo, seed 0, but 0, 50, 100 in rloo, seed 0. Where values still rise" in warning
    assert not warnings(scalar="auc"), "the area under a line does not depend on its points"
    assert not warnings(budget=50), "up to 50 all have the same steps"
