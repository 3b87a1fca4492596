"""The environments that the page shows can be played as they stand."""

import re
from pathlib import Path
from typing import Any

from core import ENVIRONMENTS
from core.parts.environments import Step
from core.parts.problems import Problem

PAGE = Path(__file__).resolve().parents[1] / "docs" / "environments.md"


def test_both_notebooks_say_what_the_notes_have(tmp_path: Path) -> None:
    for i, code in enumerate(re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)):
        names: dict[str, Any] = {"__name__": f"shown_{i}"}
        exec(compile(code, str(tmp_path), "exec"), names)
    problem = Problem("Where is k?", "m", 0, {"notes": {"k": "m"}})
    call = re.findall(r"`(<tool_call>.*?)`", PAGE.read_text("utf-8"))[0]
    for name in ("notebook", "notes"):
        episode = ENVIRONMENTS[name]()
        assert episode.reset(problem, 0) is None
        assert episode.step(call) == Step("m", call=True)
        assert episode.step(call.replace('"k"', '"z"')) == Step("error: KeyError: 'z'", call=False)
        assert episode.step("m").done
