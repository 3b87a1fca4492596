"""What `lab.judge` is given by mistake: the message names its type, and the call that it says to make works."""

import io
from pathlib import Path
from typing import Any

import pytest

from core.errors import GrpoLabError
from experiments import lab

ROWS = [
    {"arm": arm, "seed": seed, "score": 0.5 + seed / 50 + shift * (1 + seed / 10)}
    for arm, shift in (("base", 0.0), ("mine", 0.05))
    for seed in range(4)
]


def judge(measured: Any, **more: Any) -> lab.Verdicts:
    return lab.judge(measured, baseline="base", **{"margin": 0.01, **more})


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ("s2.csv", r"measured is of type str; read the file, pandas\.read_csv\('s2\.csv'\), or give results as \{arm"),
        (Path("s2.csv"), r"type PosixPath; read the file, pandas\.read_csv\('s2\.csv'\)"),
        (ROWS, r"type list; make a table of the rows, pandas\.DataFrame\(rows\), or give results as \{arm"),
        ([0.5], r"type list; give results as \{arm"),
        (None, r"type NoneType; give results as \{arm"),
        ({}, r"type dict; give results as \{arm"),
    ],
)
def test_what_holds_no_results_is_named_by_its_type(measured: object, message: str) -> None:
    with pytest.raises(GrpoLabError, match=f"^nothing to judge: .*{message}"):
        judge(measured)


def test_a_frame_that_was_turned_says_how_to_turn_it_back() -> None:
    pandas = pytest.importorskip("pandas")
    tidy = pandas.DataFrame(ROWS)
    usual = judge(tidy).table()
    wide = tidy.pivot(index="seed", columns="arm", values="score")
    names = pandas.DataFrame(wide.to_dict())
    for frame, remedy in (
        (names, "frame.to_dict()"),
        (names.rename_axis("seed"), "frame.to_dict()"),
        (names.rename_axis("seed").reset_index(), "frame.set_index('seed').to_dict()"),
        (wide, "frame.to_dict()"),
        (names.T, "frame.T.to_dict()"),
        (wide.T, "frame.T.to_dict()"),
    ):
        with pytest.raises(GrpoLabError) as refused:
            judge(frame)
        assert str(refused.value).endswith(f"by arm and seed, {remedy}")
        assert judge(eval(remedy, {"frame": frame})).table().equals(usual)
    file = io.StringIO(tidy.to_csv(index=False))
    assert judge(pandas.read_csv(file)).table().equals(usual)
    assert judge(tidy.set_index(["arm", "seed"])).table().equals(usual)
    assert judge(tidy.set_index("arm")).table().equals(usual)


def test_percentages_without_a_margin_are_a_warning() -> None:
    percent = {
        arm: {r["seed"]: 100 * float(str(r["score"])) for r in ROWS if r["arm"] == arm} for arm in ("base", "mine")
    }
    (warning,) = judge(percent, margin=None).warnings
    assert warning.startswith(
        "All scores are above 1, and the smallest difference of interest, which was not given, is"
    )
    assert "Say with margin which" in warning
    assert not judge(percent, margin=1).warnings
    shares = {arm: {seed: score / 100 for seed, score in row.items()} for arm, row in percent.items()}
    assert not judge(shares, margin=None).warnings
