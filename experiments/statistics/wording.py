"""Verdicts and warnings in words. An inconclusive result never reads as agreement: it says what it cannot see."""

from collections.abc import Mapping, Sequence

from experiments.statistics.numbers import rounded
from experiments.statistics.power import minimum_detectable_effect, power
from experiments.statistics.records import Comparison, FixedN
from experiments.statistics.rule import MAX_REMOVED, POWER, T_SEEDS, Rule

LOW_CORRELATION = 0.1
REACHABLE = 1000  # seeds; more are not realistic
# questions about the runs; where their manifests are at hand, the answers take their place
SHARE_SEEDS = "check that both arms draw prompts and sampling noise from the shared seed"
SEED_APPLIED = "is the seed really applied?"
ARMS_DIFFER = "do the two arms really differ?"


def sentence(c: Comparison, rule: Rule) -> str:
    """The verdict of one comparison with the numbers it rests on."""
    head = f"{c.arm} vs {c.baseline} on {rule.measured}: {c.verdict}"
    if c.verdict == "untestable":
        return f"{head} ({_why_untestable(c)}); mean difference {c.effect.mean_difference:+.3g}, descriptive only."
    assert c.effect.interval is not None
    assert c.adjusted_p is not None
    assert c.fixed_n is not None
    assert c.fixed_n.p_equivalence is not None
    observed = (
        f"mean difference {_difference(c.effect.mean_difference, rule)}, {_percent(1 - rule.alpha)} interval "
        f"[{', '.join(_difference(end, rule) for end in c.effect.interval)}], {c.effect.n} seeds"
    )
    if c.effect.agrees_too_well and not rule.crossed:
        observed += (
            f", standard error {c.effect.standard_error:.3g} "
            f"(what the answers allow: the seeds agree to {c.effect.seeds_error:.3g})"
        )
    test = f"adjusted p = {rounded(c.adjusted_p, 4, [rule.alpha])} ({c.test}, m = {rule.m})"
    if c.verdict == "equivalent":
        p = rounded(c.fixed_n.p_equivalence, 4, [rule.alpha])
        return f"{head} within ±{rule.margin:g} ({c.label}); {observed}, TOST p = {p}, {test}."
    if c.verdict == "inconclusive" and rule.crossed:
        return f"{head}; {observed}, {test}. The shares of the variance say what more seeds or questions would buy."
    if c.verdict == "inconclusive":
        return (
            f"{head}; {observed}, {test}. With {c.effect.n} seeds, 80 % power at alpha = {rule.family_alpha:.3g} needs "
            f"{_detectable([c.fixed_n], rule)}; detecting {rule.margin:g} needs "
            f"{_seeds_needed([c.fixed_n], 'the sd of differences')}."
        )
    small = f", but smaller than {rule.margin:g}" if c.smaller_than_margin else ""
    return f"{head}{small} ({c.label}); {observed}, {test}."


def small_n_note(rule: Rule, comparisons: Sequence[Comparison]) -> str | None:
    """What n seeds cannot show in these comparisons; None when n suffices for the margin in all of them.

    Says the smallest p of an exact test, 2 / 2^n, the smallest effect with 80 % power, and the seeds that the
    margin takes.
    """
    floor = 2 / 2**rule.n
    sds = [c.effect.spread for c in comparisons if c.effect.spread and not rule.crossed]
    weak = any(power(rule.margin / sd, rule.n, rule.family_alpha) < POWER for sd in sds)
    if floor <= rule.alpha and not weak:
        return None
    text = (
        f"n = {rule.n} paired seed{'s' * (rule.n > 1)}: the smallest two-sided p an exact sign-flip or Wilcoxon "
        f"test can give is {floor:.4g}"
    )
    if floor > rule.alpha:
        text += f" > {rule.alpha:g} — no data could be significant without assuming normality"
    text += "."
    if rule.n < T_SEEDS:
        text += f" No test is made below {T_SEEDS} seeds."
    if rule.n < 2 or not sds:
        return text
    effects = [minimum_detectable_effect(rule.n, level, POWER) for level in (rule.alpha, rule.family_alpha)]
    corrected = f" (m = {rule.m}: {rule.family_alpha:.3g})" if rule.m > 1 else ""
    stricter = f" ({effects[1]:.2f})" if rule.m > 1 else ""
    testable = [c.fixed_n for c in comparisons if c.fixed_n is not None and c.fixed_n.detectable is not None]
    return text + (
        f" With alpha = {rule.alpha:g}{corrected} 80 % power at this n needs |d_z| ≥ {effects[0]:.2f}{stricter}, "
        f"i.e. {_detectable(testable, rule)} at this sd of differences. To detect {rule.margin:g} you need "
        f"{_seeds_needed(testable, 'the sd')}."
    )


def _detectable(measured: Sequence[FixedN], rule: Rule) -> str:
    """The true difference that a power needs, or that there is none so large."""
    effects = [fixed.detectable for fixed in measured if fixed.detectable is not None]
    if min(effects) > rule.largest:
        return f"a larger true difference than {rule.metric} can have, which is not reachable"
    beyond = ", the largest of which is not reachable" if max(effects) > rule.largest else ""
    return f"a true difference of {_range(effects)}{beyond}"


def _seeds_needed(measured: Sequence[FixedN], sd: str) -> str:
    """The seeds that detecting the margin needs, up to the number that can be run."""
    needed = [fixed.seeds_for_margin for fixed in measured if fixed.seeds_for_margin is not None]
    at_most = [fixed.seeds_for_margin_high for fixed in measured if fixed.seeds_for_margin_high is not None]
    if min(needed) > REACHABLE:
        return f"more than {REACHABLE} seeds, which is not reachable"
    return f"{_seeds_range(needed)} seeds ({_seeds_range(at_most)} if {sd} is at its 80 % upper limit)"


def _seeds_range(needed: Sequence[int]) -> str:
    """The range of several numbers of seeds, with no figure beyond what can be reached."""
    if max(needed) <= REACHABLE:
        return _range(needed)
    return f"over {REACHABLE}" if min(needed) > REACHABLE else f"{min(needed)} to over {REACHABLE}"


def answers_notes(comparisons: Sequence[Comparison]) -> list[str]:
    """What is known of the answers behind the scores, where that is less than their questions."""
    pairs_by_basis = {
        basis: [f"{c.arm} vs {c.baseline}" for c in comparisons if c.effect.answers == basis and c.effect.n >= 2]
        for basis in ("by number", "unknown")
    }
    notes = []
    for basis, text in (
        (
            "by number",
            "Of the answers behind the scores only the number is known: no standard error is below the "
            "binomial one of unpaired answers, which is too large where arms share questions and noise",
        ),
        (
            "unknown",
            "The answers behind the scores are not known: intervals rest on how far the seeds agree, which "
            "by luck may be finer than the answers allow",
        ),
    ):
        pairs = pairs_by_basis[basis]
        if pairs:
            which = "" if len(pairs) == len(comparisons) else f" ({', '.join(pairs)})"
            notes.append(f"{text}{which}.")
    return notes


def comparison_notes(c: Comparison) -> list[str]:
    """Signs that seeds were not shared, or not applied."""
    pair = f"{c.arm} vs {c.baseline}"
    notes = []
    if c.effect.equal_shift:
        notes.append(f"{pair}: identical shift of {c.effect.mean_difference:+.3g} on every seed: {SEED_APPLIED}")
    elif c.effect.n >= 2 and c.effect.sd_difference == 0:
        notes.append(f"{pair}: identical scores on every seed: {ARMS_DIFFER}")
    if c.effect.correlation is not None and c.effect.correlation < LOW_CORRELATION:
        notes.append(
            f"{pair}: correlation over seeds is {c.effect.correlation:.2f} < {LOW_CORRELATION:g}, so pairing gains "
            f"nothing; {SHARE_SEEDS}."
        )
    return notes


def removal_notes(missing: Mapping[str, Sequence[int]], planned: int) -> list[str]:
    """Which seeds were left out of every arm, because some arm lacks them (`missing`: {arm: absent seeds})."""
    removed = sorted({seed for seeds in missing.values() for seed in seeds})
    if not removed:
        return []
    where = "; ".join(f"{arm} lacks {_list(seeds)}" for arm, seeds in missing.items() if seeds)
    notes = [f"{len(removed)} of {planned} seeds removed from every arm ({_list(removed)}): {where}."]
    if len(removed) > MAX_REMOVED * planned:
        notes.append(
            f"More than {_percent(MAX_REMOVED)} of the planned seeds were removed: do not rank these arms "
            "before the missing runs are made up. Runs that failed because of the method belong in the table, with "
            "their declared floor score."
        )
    return notes


def _why_untestable(c: Comparison) -> str:
    if c.effect.n < T_SEEDS:
        return f"{c.effect.n} paired seed{'s' * (c.effect.n > 1)}, a test takes {T_SEEDS}"
    return "identical shift on every seed" if c.effect.equal_shift else "identical scores on every seed"


def _difference(d: float, rule: Rule) -> str:
    """A difference, on its own side of 0 and of the margin."""
    return rounded(d, 3, (0.0, -rule.margin, rule.margin), sign="+")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.4g} %"


def _list(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _range(values: Sequence[float]) -> str:
    low, high = (f"{v}" if isinstance(v, int) else f"{v:.3g}" for v in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
