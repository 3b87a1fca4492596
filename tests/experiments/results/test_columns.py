"""What a table lacks: a column that seems to be there under another name, a seed that one arm has not."""

import re
from pathlib import Path

import pytest

from experiments import lab
from experiments.cli.main import main
from experiments.results.tables.sheets import TableError
from experiments.results.tables.tables import read_tables


@pytest.mark.parametrize(
    ("header", "guesses"),
    [
        ("method,run,accuracy", {"arm": "method", "seed": "run", "score": "accuracy"}),
        ("Variant,Random Seed,eval/accuracy", {"arm": "Variant", "seed": "Random Seed", "score": "eval/accuracy"}),
        ("arm,trial,pass@1", {"seed": "trial", "score": "pass@1"}),
        ("algo,seed,score", {"arm": "algo"}),
        ("model,seeds,mean_reward", {"arm": "model", "seed": "seeds", "score": "mean_reward"}),
        ("arm,seed,global_step,score", {"step": "global_step", "value": "score"}),
        ("method,seed,iteration,return", {"arm": "method", "step": "iteration", "value": "return"}),
        ("arm,sead,value", {"seed": "sead"}),
    ],
)
def test_a_column_under_another_name_is_asked_for_and_not_guessed(
    header: str, guesses: dict[str, str], tmp_path: Path
) -> None:
    rows = [f"grpo,{seed},{step},0.{seed + 2}" for seed in range(3) for step in (1, 2)]
    cells = header.count(",") + 1
    file = tmp_path / "results.csv"
    file.write_text("\n".join([header, *(",".join(row.split(",")[:cells]) for row in rows)]) + "\n")
    with pytest.raises(TableError) as refused:
        read_tables([file])
    said = dict(re.findall(r"no column '(\w+)': did you mean '([^']+)'\? then rename it to '\1'", str(refused.value)))
    assert said == guesses
    assert f"{file}, header: no column" in str(refused.value)


def test_a_column_of_names_is_no_seed(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("arm,run,score\ngrpo,grpo-0,0.5\n")
    with pytest.raises(TableError, match=r"header: no column 'seed'\. A table has the columns"):
        read_tables([file])


def test_a_seed_that_an_arm_lacks_is_the_next_thing_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"grpo": range(5), "mine": (0, 1, 2), "other": (0, 1, 2, 4)}
    rows = [f"{arm},{seed},{0.5 + 0.1 * (arm == 'mine') + 0.01 * seed**2}" for arm, of in scores.items() for seed in of]
    file = tmp_path / "results.csv"
    file.write_text("\n".join(["arm,seed,score", *rows]) + "\n")
    assert main(["analyze", str(file), "--baseline", "grpo"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: mine has no run for seeds 3, 4, which therefore leave every arm: arms are compared at" in said
    assert "warning: other has no run for seed 3, which therefore leaves every arm" in said
    assert "next: run mine at seeds 3 and 4 and other at seed 3 too: a seed that one arm lacks counts in none" in said
    assert "--margin" not in said
    verdicts = lab.judge(
        {arm: {seed: 0.1 * seed + 0.3 * (arm == "mine") for seed in of} for arm, of in scores.items()}, baseline="grpo"
    )
    assert "mine has no run for seeds 3, 4, which therefore leave every arm" in str(verdicts)
