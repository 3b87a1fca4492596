"""Pass rates: measured for every training question once, the same again for a seed, and readable by the task."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from core.environments.tasks.chain_sums import final_digit
from core.environments.tasks.files import files
from experiments.cli.main import main


def test_rates_are_measured_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # the layout's own verifier has no part in this: the config below names another
    module = ModuleType("core.environments.rewards.math")
    module.math_answer = final_digit  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "core.environments.rewards.math", module)
    path = tmp_path / "sums.jsonl"
    rows = [{"question": f"{a}+{b}+1=", "answer": (a + b + 1) % 10} for a in range(8) for b in range(5)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = ["train.task = @files()", f"files.path = '{path}'", "files.template = 'plain'"]
    bindings = [word for b in (*task, "train.rewards = [@final_digit]", "train.max_tokens = 24") for word in ("-b", b)]
    texts = []
    for name in ("one", "same"):
        out = tmp_path / f"{name}.jsonl"
        command = ["pass-rates", "-c", "embedded", *bindings, "--samples", "4", "--out", str(out)]
        assert main(command) == 0
        texts.append(out.read_text())
    assert texts[0] == texts[1]
    assert "files.pass_rates = " in capsys.readouterr().out
    measured = [json.loads(line) for line in texts[0].splitlines()]
    whole = files(path=str(path), template="plain")
    assert sorted(row["question"] for row in measured) == sorted(q.text for q in whole.questions["train"])
    rates = [row["pass_rate"] for row in measured]
    assert all(rate in (0, 0.25, 0.5, 0.75, 1) for rate in rates)
    assert len(set(rates)) > 1
    kept = files(path=str(path), template="plain", pass_rates=str(tmp_path / "one.jsonl"), between=(0.25, 0.75))
    assert len(kept.questions["train"]) == sum(0.25 <= rate <= 0.75 for rate in rates)
    assert main(["pass-rates", "-c", "embedded", "--out", str(tmp_path / "no.jsonl")]) == 2
    assert "train.task = @files()" in capsys.readouterr().err
