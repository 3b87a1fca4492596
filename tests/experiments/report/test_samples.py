"""What models wrote, as the report shows it: episodes turn by turn, with who said what."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

from experiments.report import render
from experiments.results.stored_study import load_study
from tests.experiments.report.studies import write_study

TURNS = [
    {"action": "?k", "observation": "!;", "reward": -0.1, "call": False},
    {"action": "?m", "observation": "x;", "reward": 0.0, "call": True},
    {"action": ">x<", "observation": "", "reward": 0.0, "call": None},
]


def rewrite(file: Path, turns: list[dict[str, Any]]) -> None:
    """Make its responses episodes."""
    record = json.loads(file.read_text())
    if isinstance(record, list):
        for response in record[0]["responses"]:
            response["turns"] = turns
    else:
        record["summary"] |= {"turns": 3.0, "tool_calls": 1.0, "tool_failures": 1.0, "turn_rewards": -0.1}
        for sample in record["questions"][0]["samples"]:
            sample["turns"] = turns
    file.write_text(json.dumps(record))


def words(cell: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", cell)).split())


def test_an_episode_is_shown_turn_by_turn(tmp_path: Path) -> None:
    write_study(tmp_path / "study")
    for file in [*(tmp_path / "study").glob("*/*/eval/**/step=*.json"), *(tmp_path / "study").glob("*/*/rollouts/*")]:
        rewrite(file, TURNS[1:] if "dapo" in str(file) else TURNS)
    page = render(load_study(tmp_path / "study"), None)
    whole = "policy ?k failed call reward −0.10 environment !; policy ?m environment x; policy >x<"
    held_out, trained = page.split("<h3>In training</h3>")
    for part in (held_out, trained):
        cells = [words(cell) for cell in re.findall(r'<(?:td|th scope="row") class="text">(.*?)</t[dh]>', part, re.S)]
        assert any(cell.startswith(whole) for cell in cells), cells
        assert any(cell.startswith("policy ?m environment x; policy >x<") for cell in cells), cells
    for title in ("Turns an episode", "Tool calls an episode that worked", "Tool calls an episode that failed"):
        assert title in page


def test_arms_with_the_same_last_turn_and_another_way_are_apart(tmp_path: Path) -> None:
    write_study(tmp_path / "study", response="3")
    for file in (tmp_path / "study").glob("dapo/*/eval/**/step=*.json"):
        rewrite(file, TURNS)
    page = render(load_study(tmp_path / "study"), None)
    assert page.count('<span class="role">environment</span>') >= 2


def test_a_response_of_one_turn_has_no_roles(tmp_path: Path) -> None:
    write_study(tmp_path / "study")
    page = render(load_study(tmp_path / "study"), None)
    assert 'class="role"' not in page
    assert "Turns an episode" not in page
