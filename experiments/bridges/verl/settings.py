"""What a run of verl says about its variant: `actor_rollout_ref.grpolab`, from which every process makes it anew."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from core.errors import GrpoLabError, near
from core.parts.import_path import find_modules_in
from core.parts.variant import Variant
from experiments.bridges.variant import variant_of

PLACE = "actor_rollout_ref.grpolab"


@dataclass(frozen=True)
class Settings:
    """The variant by its name, with modules and bindings, and what the bridge is told beside it."""

    variant: str
    modules: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    seed: int = 0
    """Of what an objective draws and of the sampler's seeds: verl's data.seed."""
    folder: str = ""
    """Where the command was given: the modules are looked for there, after all that is installed."""
    reward_parts: tuple[str, ...] = ()
    """What the reward function returns beside its score and the variant reads as rewards of their own."""
    reward_weights: tuple[float, ...] = ()
    keyed_noise: bool = False
    """Whether every request to the sampler has a seed of its own."""

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> "Settings":
        """Read from the node of verl's configuration; raises `GrpoLabError` for what is missing or unknown."""
        if not given or not given.get("variant"):
            raise GrpoLabError(f"no variant: give +{PLACE}.variant=NAME, e.g. dapo")
        names = {"import": "modules", "bind": "bindings"}
        known = {*names, *(field.name for field in fields(cls))} - set(names.values())
        for name in given:
            if name not in known:
                raise GrpoLabError(f"{PLACE}.{name} is no setting; {near(str(name), known)}")
        values = {names.get(name, name): value for name, value in given.items()}
        for name in ("modules", "bindings", "reward_parts", "reward_weights"):
            if isinstance(values.get(name, ()), str):
                shown = next((option for option, field in names.items() if field == name), name)
                raise GrpoLabError(f"{PLACE}.{shown} = {values[name]!r} must be a list: [{values[name]}]")
            values[name] = tuple(values.get(name) or ())
        settings = cls(**values)
        if settings.reward_weights and len(settings.reward_weights) != len(settings.reward_parts):
            raise GrpoLabError(
                f"{PLACE}.reward_weights has {len(settings.reward_weights)} numbers for {len(settings.reward_parts)} "
                "reward_parts: give one for each, or none"
            )
        return settings

    def make(self) -> Variant:
        """The variant, resolved; the same in every process."""
        if self.folder:
            find_modules_in(self.folder)
        return variant_of(self.variant, modules=self.modules, bindings=self.bindings)
