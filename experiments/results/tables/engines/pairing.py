"""What only configurations tell of seeds: whether those that are named are those that ran, and what runs share."""

from collections.abc import Sequence

from experiments.results.tables.engines.log import Settings


def pairing_warnings(runs: Sequence[tuple[str, int, Settings]]) -> list[str]:
    """Seeds that differ in name only, and prompts that no seed orders."""
    warnings = []
    by_arm: dict[str, list[tuple[int, Settings]]] = {}
    for arm, seed, settings in runs:
        by_arm.setdefault(arm, []).append((seed, settings))
    same: dict[tuple[tuple[int, ...], int], list[str]] = {}
    for arm, of in by_arm.items():
        own = {settings.seed for _, settings in of}
        named = tuple(sorted({seed for seed, _ in of}))
        if len(named) > 1 and len(own) == 1 and (configured := own.pop()) is not None:
            same.setdefault((named, configured), []).append(arm)
    for (named, configured), arms in same.items():
        warnings.append(
            f"By their names the runs of {', '.join(arms)} have seeds {', '.join(map(str, named))}, but all their "
            f"configurations have seed {configured}: whatever the trainer draws by its seed is the same in all of "
            "them, and they differ by what it does not. Set the trainer's own seed in every run."
        )
    unseeded = sorted({arm for arm, _, settings in runs if settings.unseeded_data})
    if unseeded:
        warnings.append(
            f"data.seed is null in runs of {', '.join(unseeded)}: verl then gives every run the same order of prompts, "
            "whatever its seed, so that the seeds do not stand for other draws of prompts. Set data.seed."
        )
    return warnings


def pairing_notes(settings: Sequence[Settings]) -> list[str]:
    """What runs of one seed share besides its name."""
    if not settings:
        return []
    keyed = [each.keyed_noise for each in settings]
    if all(keyed):
        return [
            "All runs were started by a bridge of the bench with keyed noise: runs of one seed share prompts and "
            "sampling noise, so that pairing by seed holds as in a study of the bench."
        ]
    some = f" ({sum(keyed)} of {len(keyed)} logs are of runs with keyed noise)" if any(keyed) else ""
    return [
        "Runs of one seed share the order of prompts at most, where the trainer was given the seed, and not the "
        f"sampling noise{some}: pairing by seed then takes little of the noise out. The verdicts hold all the same."
    ]
