"""Which providers a variant's run has."""

from collections.abc import Sequence

from core.errors import GrpoLabError
from core.parts.options import ProviderOptions, fillable_fields
from core.parts.registry import PROVIDERS, Part, as_part
from core.parts.variant import Variant


def providers_for(variant: Variant, chosen: Sequence[Part]) -> tuple[Part, ...]:
    """A provider for each field that the variant needs and the core does not fill itself: the chosen one, or the only
    one there is.
    """
    providers = [as_part(part, "provider", "train.providers") for part in chosen]
    return tuple(
        _provider(variant, field, providers).resolved()
        for field in sorted(variant.needs.intersection(fillable_fields()))
    )


def _provider(variant: Variant, field: str, providers: Sequence[Part]) -> Part:
    candidates = [part for part in PROVIDERS.values() if ProviderOptions.of(part).fills == field]
    candidates = [part for part in providers if ProviderOptions.of(part).fills == field] or candidates
    needs = f"variant '{variant.name}' needs the batch field '{field}', which"
    if not candidates:
        raise GrpoLabError(f"{needs} no provider fills; register one with @provider(fills={field!r}, cost=...)")
    if len(candidates) > 1:
        listed = " and ".join(f"'{part.name}' ({part.place})" for part in candidates)
        raise GrpoLabError(f"{needs} is filled by {listed}: choose one, train.providers = [@{candidates[-1].name}]")
    return candidates[0]
