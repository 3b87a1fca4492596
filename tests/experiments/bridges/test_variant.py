"""A variant for another trainer: by its name, with bindings and a user's parts, on torch and gin alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import GrpoLabError
from experiments.bridges.variant import variant_of


def test_bindings_are_fixed_in_what_is_returned() -> None:
    variant = variant_of("dapo", bindings=["dapo.eps_high = 0.31"])
    assert variant.objective.settings()["eps_high"].value == 0.31
    assert variant_of("dapo").objective.settings()["eps_high"].value != 0.31


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(GrpoLabError, match="no variant 'dapoo'; did you mean dapo"):
        variant_of("dapoo")
    with pytest.raises(GrpoLabError, match="no module 'no_such_parts' in "):
        variant_of("dapo", modules=["no_such_parts"])
    with pytest.raises(GrpoLabError, match=r"no module 'no_such\.parts' in "):
        variant_of("dapo", modules=["no_such.parts"])


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        (
            "failing_0",
            "import no_such_library",
            r"ModuleNotFoundError: No module named 'no_such_library' \(.*failing_0\.py:1, ",
        ),
        ("failing_1", "def (", r"SyntaxError: .*\(failing_1\.py, line 1\)"),
        ("failing_2", "x = 1\nraise SystemExit(3)", r"SystemExit: 3 \(.*failing_2\.py:2, "),
    ],
)
def test_a_users_module_that_cannot_be_imported_is_named_with_its_line(
    name: str, code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(GrpoLabError, match=f"^importing '{name}' fails: {said}"):
        variant_of("dapo", modules=[name])


PARTS = """
from core import advantage

@advantage
def halved(batch):
    \"\"\"Half the reward.\"\"\"
    return batch.rewards / 2
"""
PROGRAM = """
import sys
from experiments.bridges.variant import variant_of
variant = variant_of("grpo", modules=["halved_parts"], bindings=["grpo.advantage = @halved"])
print(variant.advantage.name, *sorted({"transformers", "accelerate", "scipy", "rich"} & sys.modules.keys()))
"""


def test_a_users_module_in_the_current_folder_registers_parts_and_the_bench_stays_out(tmp_path: Path) -> None:
    (tmp_path / "halved_parts.py").write_text(PARTS)
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "__init__.py").write_text("raise SystemExit('the wrong core')")
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "halved\n"
