"""Parts and registries: how a function becomes a part, and what is refused."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from core import (
    ADVANTAGES,
    AGGREGATORS,
    OBJECTIVES,
    VARIANTS,
    Batch,
    GrpoLabError,
    Part,
    Variant,
    advantage,
    aggregator,
    correction,
    credit,
    filter,
    generator,
    kl,
    objective,
    provider,
    reward,
    selection,
    setting,
    shaping,
    task,
    variant,
)
from core.parts import registry
from core.parts.options import AggregatorOptions
from core.parts.registry import as_part, config
from estimators.advantages.group import group_mean
from estimators.aggregators import token_mean
from estimators.objectives.token import clip

# registering


def test_a_part_has_the_name_place_and_hyper_parameters_of_its_function() -> None:
    @advantage(axes={"baseline": "none, times {scale:g}"})
    def tripled_reward_in_a_test(batch: Batch, *, scale: float = 3.0) -> Tensor:
        """The reward, times three."""
        return scale * batch.rewards

    part = ADVANTAGES["tripled_reward_in_a_test"]
    assert part is tripled_reward_in_a_test
    assert part.name == "tripled_reward_in_a_test"
    assert part.selector == "advantages.tripled_reward_in_a_test"
    assert part.place.split(":")[0] == __file__
    assert part.defaults == {"scale": 3.0}
    assert part.parameters == ("batch",)
    assert part.describe() == {"baseline": "none, times 3"}
    assert repr(part) == "tripled_reward_in_a_test(scale=3.0)"
    assert part(Batch.of([[1.0, 2.0]])).tolist() == [[3, 6]]
    assert part(Batch.of([[1.0, 2.0]]), scale=2.0).tolist() == [[2, 4]]
    assert part.using(scale=10.0)(Batch.of([[1.0, 2.0]])).tolist() == [[10, 20]]


def test_duplicate_names_are_refused_with_both_places() -> None:
    def first_kind_of_duplicate(mask: Tensor) -> Tensor:
        """One."""
        return mask

    def define() -> None:
        @advantage
        def first_kind_of_duplicate(batch: Batch) -> Tensor:
            """Two: of another kind, yet a name in a gin file must mean one thing."""
            return batch.rewards

    part = aggregator(first_kind_of_duplicate)
    with pytest.raises(GrpoLabError) as refused:
        define()
    assert part.place in str(refused.value)
    assert len(set(re.findall(rf"{re.escape(__file__)}:\d+", str(refused.value)))) == 2
    assert "the name is taken by the aggregator" in str(refused.value)
    assert "first_kind_of_duplicate" not in ADVANTAGES


def test_unknown_names_list_the_near_ones() -> None:
    with pytest.raises(GrpoLabError, match=r"unknown variant 'gropo': did you mean grpo "):
        VARIANTS["gropo"]
    with pytest.raises(GrpoLabError, match="unknown objective 'zzz': known: "):
        OBJECTIVES["zzz"]


def no_docstring(batch: Batch) -> Tensor:
    return batch.rewards


def takes_kwargs(batch: Batch, **more: float) -> Tensor:
    """Takes anything."""
    return batch.rewards


def takes_args(batch: Batch, *more: float) -> Tensor:
    """Takes anything."""
    return batch.rewards


def positional(batch: Batch, scale: float = 1.0) -> Tensor:
    """A hyper-parameter before the star."""
    return scale * batch.rewards


def wrong_name(rollout: Batch) -> Tensor:
    """Not `batch`."""
    return rollout.rewards


def no_default(batch: Batch, *, scale: float) -> Tensor:
    """A hyper-parameter that is not set."""
    return scale * batch.rewards


def wrong_mask(weights: Tensor) -> Tensor:
    """Not `mask`."""
    return weights


def mask_and_limit(mask: Tensor, max_tokens: int) -> Tensor:
    """The limit before the star."""
    return mask / max_tokens


def asks_too_much(logps: Tensor, advantages: Tensor, logits: Tensor) -> Tensor:
    """Logits are not kept."""
    return logps * advantages * logits


def not_on_the_policy(old_logps: Tensor, advantages: Tensor) -> Tensor:
    """No `logps`."""
    return old_logps * advantages


def eps_is_positional(logps: Tensor, advantages: Tensor, eps: float = 0.2) -> Tensor:
    """A hyper-parameter before the star."""
    return logps * advantages * eps


def swapped(ref_logps: Tensor, logps: Tensor) -> Tensor:
    """In the wrong order."""
    return ref_logps - logps


def two_of_three(old_logps: Tensor, behaviour_logps: Tensor) -> Tensor:
    """No mask."""
    return old_logps - behaviour_logps


def corrects_by_logps(old_logps: Tensor, mask: Tensor, logps: Tensor) -> Tensor:
    """The present policy's are not there yet."""
    return old_logps - logps


def corrects(old_logps: Tensor, behaviour_logps: Tensor, mask: Tensor) -> Tensor:
    """Nothing wrong with it."""
    return old_logps - behaviour_logps


def credits(batch: Batch, advantages: Tensor) -> Tensor:
    """Nothing wrong with it."""
    return advantages


def by_group(mask: Tensor, *, group_size: int) -> Tensor:
    """Nothing wrong with it."""
    return mask.double() / group_size


def only_rewards(rewards: Tensor) -> Tensor:
    """No lengths."""
    return rewards


def only_response(response: str) -> float:
    """No problem."""
    return float(response)


def with_argument(seed: int) -> None:
    """Settings are keyword-only."""


def variant_positional(advantage: Part = group_mean) -> Variant:
    """A part before the star cannot be bound."""
    return Variant(advantage=advantage, objective=clip, aggregator=token_mean)


def variant_no_default(*, advantage: Part) -> Variant:
    """A part that is not set."""
    return Variant(advantage=advantage, objective=clip, aggregator=token_mean)


def prepared_without_prepare(logps: Tensor, prepared: Tensor) -> Tensor:
    """Asks for what nothing makes."""
    return logps * prepared


def prepares_with_share(logps: Tensor, *, share: float) -> Tensor:
    """Wants a hyper-parameter that the objective has not."""
    return logps


def plain_variant() -> Variant:
    """Fine by itself."""
    return Variant(advantage=group_mean, objective=clip, aggregator=token_mean)


def plain_objective(logps: Tensor) -> Tensor:
    """Fine by itself."""
    return logps


def plain_advantage(batch: Batch) -> Tensor:
    """Fine by itself."""
    return batch.rewards


def plain_provider(run: Any) -> Any:
    """Fine by itself."""
    return run


REFUSED: list[tuple[str, Callable[..., Any], Callable[..., Any], str]] = [
    ("advantage without docstring", advantage, no_docstring, "needs a docstring"),
    ("advantage kwargs", advantage, takes_kwargs, r"may not take \*more"),
    ("advantage args", advantage, takes_args, r"may not take \*more"),
    (
        "advantage positional",
        advantage,
        positional,
        r"takes \(batch, scale\) but must take \(batch\).* after a bare \*",
    ),
    ("advantage wrong name", advantage, wrong_name, r"takes \(rollout\) but must take \(batch\)"),
    ("advantage no default", advantage, no_default, "'scale' needs a default"),
    ("advantage lambda", advantage, lambda batch: batch.rewards, "write it as a def, not a lambda"),
    ("advantage needs", advantage(needs=("critic",)), plain_advantage, "needs critic, which no batch has"),
    ("advantage needs no tuple", advantage(needs="greedy_rewards"), plain_advantage, "must be a tuple"),  # type: ignore[call-overload]
    ("advantage scope", advantage(scope="grup"), plain_advantage, "scope='grup' must be one of group, batch"),  # type: ignore[call-overload]
    ("advantage min_group", advantage(min_group=0), plain_advantage, "min_group=0 at least 1"),
    ("objective level", objective(level="rows"), plain_objective, "level='rows' must be one of row, group"),  # type: ignore[call-overload]
    ("advantage state", advantage(state=dict), plain_advantage, r"must take \(batch, state\)"),
    ("aggregator wrong name", aggregator, wrong_mask, r"must take \(mask\)"),
    ("aggregator positional", aggregator, mask_and_limit, r"must take \(mask\)"),
    ("objective unknown tensor", objective, asks_too_much, r"asks for logits; its positional parameters are logps"),
    ("objective without logps", objective, not_on_the_policy, r"does not ask for logps; its positional parameters"),
    ("objective positional", objective, eps_is_positional, r"after a bare \*"),
    ("objective prepared", objective, prepared_without_prepare, "go together"),
    ("objective prepare", objective(prepare=lambda *_: None), plain_objective, "go together"),
    (
        "prepare tensor",
        objective(prepare=lambda generation: generation),
        prepared_without_prepare,
        "asks for generation; it may",
    ),
    ("prepare hyper", objective(prepare=prepares_with_share), prepared_without_prepare, "`prepare` asks for share"),
    ("published", advantage(published={"eps": "a paper"}), plain_advantage, "publishes what it has no hyper-parameter"),
    ("published variant", variant(published={"eps": "a paper"}), plain_variant, "publishes what it has no"),
    ("kl swapped", kl, swapped, r"must take \(logps, ref_logps\) or \(logps, ref_logps, old_logps\)"),
    ("correction", correction, two_of_three, "does not ask for mask"),
    ("correction tensor", correction, corrects_by_logps, "asks for logps; its positional parameters are old_logps"),
    ("correction scope", correction(scope="batch"), corrects, "scope='batch' must be one of row, step"),  # type: ignore[call-overload]
    ("credit", credit, wrong_name, r"must take \(batch, advantages\)"),
    ("credit needs", credit(needs=("mood",)), credits, "needs mood, which no batch has"),
    ("selection", selection, wrong_name, r"must take \(batch\)"),
    ("aggregator groups", aggregator(split_invariant=False), by_group, "takes group_size, and split_invariant=False"),
    ("filter", filter, wrong_name, r"must take \(batch\)"),
    ("shaping", shaping, only_rewards, r"must take \(rewards, lengths, truncated\)"),
    ("reward", reward, only_response, r"must take \(problem, response\)"),
    ("task", task, with_argument, r"must take \(\)"),
    ("generator", generator, with_argument, r"must take \(\)"),
    ("setting", setting, with_argument, r"must take \(\)"),
    ("provider field", provider(fills="logps", cost="much"), plain_provider, "'logps', which is no field"),
    ("provider of the core's", provider(fills="mask", cost="much"), plain_provider, "'mask', which is no field"),
    ("provider field name", provider(fills="my field", cost="much"), plain_provider, "must be a name, e.g. fills="),
    (
        "provider own shape",
        provider(fills="difficulty", cost="much", shape="[T]"),  # type: ignore[arg-type]
        plain_provider,
        r"shape='\[T\]' must be one of \[P\], \[P, G\], \[P, G, T\]",
    ),
    ("provider argument", provider(fills="values", cost="much"), wrong_name, r"must take \(run\)"),
    ("variant positional", variant, variant_positional, "advantage"),
    ("variant no default", variant, variant_no_default, "'advantage' needs a default"),
]


@pytest.mark.parametrize(("decorate", "function", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_decorators_refuse_what_breaks_their_contract(
    decorate: Callable[..., Any], function: Callable[..., Any], message: str
) -> None:
    """With the place where the function was written, and nothing half-registered."""
    before = {kind: set(parts) for kind, parts in registry.REGISTRIES.items()}
    with pytest.raises(GrpoLabError, match=message) as refused:
        decorate(function)
    assert function.__name__ in str(refused.value) or "lambda" in str(refused.value)
    assert {kind: set(parts) for kind, parts in registry.REGISTRIES.items()} == before


def test_everything_that_the_contract_allows_is_taken() -> None:
    @objective(level="group", prepare=lambda logps, advantages, mask, generator: mask)
    def allowed_objective(
        logps: Tensor, prepared: Tensor, ref_logps: Tensor, lengths: Tensor, *, beta: float = 0.1
    ) -> Tensor:
        """Names what it wants."""
        return logps

    @kl
    def allowed_kl(logps: Tensor, ref_logps: Tensor, old_logps: Tensor) -> Tensor:
        """With a third argument."""
        return logps

    @aggregator
    def allowed_aggregator(mask: Tensor, *, max_tokens: int, share: float = 0.5) -> Tensor:
        """The limit is handed in, the share is a hyper-parameter."""
        return mask.float() * share / max_tokens

    assert allowed_objective.parameters == ("logps", "prepared", "ref_logps", "lengths")
    assert allowed_kl.takes("old_logps")
    assert allowed_aggregator.defaults == {"share": 0.5}
    assert allowed_aggregator.options == AggregatorOptions(split_invariant=True)


def test_a_card_leaves_no_changed_hyper_parameter_unsaid() -> None:
    from estimators.aggregators import seq_mean_token_mean
    from estimators.objectives.divergence import dppo_kl_mask

    assert "eps" not in dppo_kl_mask.describe()["ratio"]
    assert dppo_kl_mask.using(eps=0.5).describe()["ratio"].endswith(" (eps = 0.5)")
    assert seq_mean_token_mean.using(count_empty=False).describe() == {
        "aggregation": "mean over rows of their token mean (count_empty = False)"
    }


def test_where_values_come_from() -> None:
    assert clip.settings()["eps_low"] == registry.Setting(0.2, "published")
    assert clip.using(eps_low=0.2).settings()["eps_low"].source == "variant"
    with config(bindings=["clip.eps_low = 0.3"]):
        assert clip.settings()["eps_low"] == registry.Setting(0.3, "binding")
        assert clip.settings()["eps_high"].source == "published"


def test_parts_of_another_kind_are_refused() -> None:
    with pytest.raises(GrpoLabError, match=r"here must be a registered objective, not the aggregator 'token_mean'"):
        as_part(token_mean, "objective", "here")
    with pytest.raises(GrpoLabError, match=r"not 'clip'; in gin write @name, one of: .*clip"):
        as_part("clip", "objective", "here")


def test_equality_is_function_and_set_values() -> None:
    assert clip == OBJECTIVES["clip"]
    assert clip.using(eps_low=0.1) == clip.using(eps_low=0.1)
    assert clip.using(eps_low=0.1) != clip
    assert clip.using(eps_low=0.1) != clip.using(eps_low=0.2)
    assert clip != token_mean
    assert len({clip, clip.using(eps_low=0.1), OBJECTIVES["clip"]}) == 2


def test_unknown_hyper_parameters_are_refused_with_the_known_ones() -> None:
    with pytest.raises(
        GrpoLabError, match=r"objective 'clip' .* has no hyper-parameter epsilon; it has: eps_low, eps_high"
    ):
        clip.using(epsilon=0.2)


def test_every_shipped_part_is_registered_under_its_own_name() -> None:
    for kind, parts in registry.REGISTRIES.items():
        for name, part in parts.items():
            assert part.name == name
            assert part.kind == kind
            assert part.function.__doc__
    assert {"grpo", "dr_grpo", "dapo", "rloo", "remax", "reinforce"} <= set(VARIANTS)
    assert {"token_mean", "seq_mean_token_mean", "seq_mean_token_sum", "seq_mean_token_sum_norm"} <= set(AGGREGATORS)
