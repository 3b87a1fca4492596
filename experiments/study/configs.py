"""Gin files by name, and what a config builds."""

from pathlib import Path
from typing import Any, Final

import core.parts.registry as registry
from core import SETTINGS, GrpoLabError
from core.errors import near
from core.parts.settings import SettingError
from experiments.study.missing import with_generator_errors

CONFIGS: Final = Path(__file__).parents[1] / "configs"
DECLARING: Final = ("compare", "ablate", "tune", "claim")
"""Settings that declare a study; they are no part of a run's config or identity."""


def find_config(name: str) -> str:
    """A gin file as given, or the shipped one of that name."""
    if Path(name).is_file():
        return name
    shipped = CONFIGS / (name if name.endswith(".gin") else f"{name}.gin")
    if shipped.is_file():
        return str(shipped)
    hint = near(name.removesuffix(".gin"), shipped_configs(), "grpolab list configs")
    raise GrpoLabError(f"config file not found: {name} (looked in {Path.cwd()} and among the shipped): {hint}")


def shipped_configs() -> dict[str, str]:
    """The shipped gin files by name, with their first line."""
    files = {str(path.relative_to(CONFIGS).with_suffix("")): path for path in sorted(CONFIGS.rglob("*.gin"))}
    return {name: file.read_text("utf-8").partition("\n")[0].lstrip("# ") for name, file in files.items()}


def run_text() -> str:
    """The present config as gin text, without what declares a study: that must not change a run's identity."""
    mine = tuple(f"{name}." for name in DECLARING)
    return "".join(line for line in registry.config_text().splitlines(keepends=True) if not line.startswith(mine))


def build(name: str, **arguments: Any) -> Any:
    """Call a bundle of settings; a value of the wrong kind is a readable mistake, not a traceback."""
    try:
        return SETTINGS[name](**arguments)
    except SettingError:
        raise
    except GrpoLabError as error:
        raise (with_generator_errors(error) if name == "train" else error) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise GrpoLabError(
            f"{name} cannot be built from this config: {error}. Numbers stand without quotes, a part is @name, and "
            "what makes a variant, task or generator is called: @name()"
        ) from error
