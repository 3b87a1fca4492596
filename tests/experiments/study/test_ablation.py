"""An ablation as declared in gin: what arrives in the arms, and every mistake before anything runs."""

from pathlib import Path

import pytest

from core import GrpoLabError
from core.loop.staleness import UniformAge
from experiments.study.configs import CONFIGS
from experiments.study.study import (
    Study,
    prepare_study,
)

SHIPPED = str(CONFIGS / "ablate_dapo.gin")


def study(axes: str, *more: str, design: str | None = None) -> Study:
    chosen = [f"ablate.design = '{design}'"] if design else []
    bindings = ["train.variant = @dapo()", f"ablate.axes = {axes}", *chosen, *more]
    return prepare_study([str(CONFIGS / "embedded.gin")], bindings, (0, 1))


def test_values_of_variant_optimizer_sampling_and_task_arrive() -> None:
    made = study(
        "{'dapo.eps_high': [0.28, 0.4], 'dapo.filter': [@nonuniform, None], 'adamw.learning_rate': [1e-4, 3e-4], "
        "'train.group_size': [8, 4], 'chain_sums.max_terms': [6, 4], 'dapo.shaping': [[@soft_overlong], []]}"
    )
    assert list(made.recipes) == [
        "base",
        "eps_high=0.4",
        "filter=none",
        "learning_rate=0.0003",
        "group_size=4",
        "max_terms=4",
        "shaping=none",
    ]
    assert made.settings.baseline == "base"
    base, wide = made.recipes["base"], made.recipes["eps_high=0.4"]
    assert (base.optimizer.learning_rate, base.group_size) == (1e-4, 8), "first values, not the file's"
    assert wide.variant.objective.set_values["eps_high"] == 0.4
    assert base.variant.objective.set_values["eps_high"] == 0.28
    assert made.recipes["filter=none"].variant.filter is None
    assert made.recipes["learning_rate=0.0003"].optimizer.learning_rate == 3e-4
    assert made.recipes["group_size=4"].group_size == 4
    assert made.recipes["shaping=none"].variant.shaping == ()
    assert made.varies("max_terms=4") == ["first_rollout", "prompts"]
    assert not made.confounded()


def test_the_shipped_ablation_states_only_its_difference_and_can_be_included(tmp_path: Path) -> None:
    shipped = prepare_study([SHIPPED], [], [0])
    assert list(shipped.recipes) == ["full", "no-clip-higher", "no-dynamic-sampling", "no-token-mean", "no-overlong"]
    assert shipped.recipes["full"].prompts == 16, "from embedded.gin"
    own = tmp_path / "steps.gin"
    own.write_text("include 'ablate_dapo.gin'\nablate.design = 'cumulative'\ncompare.name = 'steps'\n")
    steps = prepare_study([str(own)], [], [0])
    labels = list(steps.recipes)
    assert labels == ["bare", "+clip-higher", "+dynamic-sampling", "+token-mean", "+overlong"]
    assert steps.settings.baseline == "bare"
    assert steps.recipes[labels[-1]].variant == shipped.recipes["full"].variant
    assert steps.config == shipped.config, "runs of both designs are of one recipe"
    assert "3 of the other 4 arms differ from 'bare' on several axes" in steps.confounded()[0]
    assert len(steps.confounded()) == 1


def test_the_design_is_declared_and_hashed_with_the_study() -> None:
    one = study("{'dapo.eps_high': [0.28, 0.2]}")
    assert one.declaration["ablation"] == {"design": "one_at_a_time", "axes": {"dapo.eps_high": ["0.28", "0.2"]}}
    other = study("{'dapo.eps_high': [0.28, 0.2]}", design="leave_one_out")
    assert one.hash != other.hash
    axes = "{'dapo.eps_high': [0.2, 0.3, 0.4], 'train.group_size': [4, 8, 16]}"
    drawn = [study(axes, "ablate.number = 4", f"ablate.seed = {seed}", design="random") for seed in (0, 0, 1)]
    assert drawn[0].hash == drawn[1].hash != drawn[2].hash
    assert len(drawn[0].recipes) == 4
    assert drawn[0].settings.baseline == "eps_high=0.2,group_size=4"
    assert drawn[0].declaration["ablation"]["seed"] == 0


def test_an_axis_may_choose_the_variant_and_compare_the_baseline() -> None:
    made = study("{'train.variant': [@grpo(), @dapo()]}", "compare.baseline = 'variant=dapo'")
    assert made.settings.baseline == "variant=dapo"
    assert [recipe.variant.name for recipe in made.recipes.values()] == ["grpo", "dapo"]
    assert "'base' and 'variant=dapo' differ in" in made.confounded()[0]


def test_staleness_is_an_axis_and_changes_nothing_that_arms_share() -> None:
    made = study("{'train.staleness': [0, 8, @uniform_age()]}", "uniform_age.most = 4")
    assert list(made.recipes) == ["base", "staleness=8", "staleness=uniform_age"]
    assert [recipe.staleness for recipe in made.recipes.values()] == [0, 8, UniformAge(4)]
    assert made.confounded() == []
    assert [made.varies(label) for label in made.recipes] == [[], [], []]


@pytest.mark.parametrize(
    ("axes", "more", "message"),
    [
        ("{'dapo.eps_hihg': [0.2, 0.3]}", [], "'dapo' has no parameter 'eps_hihg': did you mean eps_high"),
        ("{'dpao.eps_high': [0.2, 0.3]}", [], "'dpao.eps_high' names no parameter.*did you mean .*dapo"),
        ("{'eps_high': [0.2, 0.3]}", [], "'eps_high' names no parameter: write PART.PARAMETER"),
        ("{'a/dapo.eps_high': [0.2, 0.3]}", [], "'a/dapo.eps_high' names no parameter"),
        ("{3: [0.2, 0.3]}", [], "ablate.axes = {3: .*must be a dictionary of texts in quotes to lists"),
        ("{}", [], "ablate.axes is empty"),
        ("[1, 2]", [], r"ablate.axes = \[1, 2\]: must be a dictionary"),
        ("{'dapo.eps_high': []}", [], "'dapo.eps_high' has 0 values and design 'one_at_a_time' needs two"),
        ("{'dapo.eps_high': 0.3}", [], "ablate.axes = {'dapo.eps_high': 0.3}: must be .* lists of values"),
        ("{'dapo.eps_high': [0.3]}", [], "'dapo.eps_high' has 1 value and design 'one_at_a_time' needs two"),
        ("{'dapo.eps_high': [0.2, 0.3, 0.4]}", ["ablate.design = 'cumulative'"], "has 3 values.*exactly two"),
        ("{'dapo.eps_high': [0.2, 0.2]}", [], "'dapo.eps_high' has the value 0.2 twice"),
        ("{'train.group_size': [8, 8.0]}", [], "the value 8.0 twice"),
        ("{'dapo.shaping': [[], []]}", [], r"the value \[\] twice"),
        ("{'dapo.eps_high': [0.2, 0.3], 'variants.dapo.eps_high': [0.2, 0.4]}", [], "are the same parameter"),
        ("{'dapo.eps_high': [0.2, @grpo]}", [], "takes a value such as 0.28, not the variant @grpo"),
        ("{'train.staleness': [0, @adamw()]}", [], "takes a value such as 0, not the setting @adamw"),
        ("{'train.staleness': [0, 3]}", ["train.minibatches = 2"], "train.staleness = 3: .*nearest are 2 and 4"),
        ("{'train.staleness': [0, @uniform_age]}", [], "@uniform_age: must be a whole .* or @uniform_age"),
        ("{'dapo.aggregator': [@token_mean, 0.3]}", [], "takes a registered aggregator, such as @token_mean, not 0.3"),
        ("{'dapo.aggregator': [@token_mean, @clip]}", [], "takes a registered aggregator.*not @clip"),
        ("{'dapo.aggregator': [@token_mean, None]}", [], "arm 'aggregator=none'.*must be a registered aggregator"),
        ("{'chain_sums.max_terms': [4, {'a': 1}]}", [], r"^ablate.axes: 'chain_sums.max_terms' takes .* not {'a': 1}"),
        ("{'adamw.learning_rate': [{'a': 1}, 1e-4]}", [], r"^ablate.axes: 'adamw.learning_rate' takes .*not {'a': 1}"),
        ("{'train.group_size': [8, 'four']}", [], r"arm 'group_size=four': .* = 'four': must be a whole.*\(command"),
        ("{'train.task': [@chain_sums(), @chain_sums]}", [], "arm 'task=chain_sums': .* = @chain_sums: must be a task"),
        ("{'dapo.eps_high': [0.2, -0.3]}", [], r"arm 'eps_high=-0.3': dapo.eps_high = -0.3: must be a number"),
        ("{'dapo.shaping': [[], [@a_b]]}", [], "No configurable matching.*a_b"),
        ("{'rloo.kl_coef': [0.0, 0.1]}", [], "arm 'kl_coef=0.1'.*'rloo' is not used here, but dapo"),
        ("{'clip.eps_high': [0.2, 0.3]}", [], "arm 'eps_high=0.3'.*bind 'dapo.eps_high' instead"),
        ("{'grpo.kl': [@k3, @k2]}", ["train.variant = @grpo()"], "arm 'kl=k2' does the same as arm 'base'"),
        ("{'policy.model': ['a b', 'a-b']}", ["ablate.design = 'grid'"], "two arms are called 'model=a-b'"),
        ("{'compare.alpha': [0.05, 0.1]}", [], "cannot be an axis: it declares the study"),
        ("{'evaluation.questions': [8, 16]}", [], "cannot be an axis: all arms must be tested alike"),
        ("{'train.steps': [20, 40]}", [], "budget must be the same"),
        ("{'dapo.eps_high': [0.2, 0.3]}", ["ablate.design = 'gird'"], "ablate.design = 'gird': must be 'grid', "),
        ("{'dapo.eps_high': [0.2, 0.3]}", ["ablate.number = 2"], "go with design 'random', not 'one_at_a_time'"),
        ("{'dapo.eps_high': [0.2, 0.3]}", ["ablate.seed = 2"], "go with design 'random'"),
        ("{'dapo.eps_high': [0.2, 0.3]}", ["ablate.design = 'random'"], "ablate.number = None.*from 2 to all 2 points"),
        ("{'dapo.eps_high': [0.2, 0.3]}", ["ablate.design = 'random'", "ablate.number = 3"], "ablate.number = 3"),
        ("{'dapo.eps_high': [0.2, 0.3]}", ["ablate.names = {'eps': 'x'}"], "'eps' is not an axis"),
        ("{'dapo.eps_high': [0.2, 0.3]}", ["ablate.names = {'dapo.eps_high': 'a/b'}"], "'a/b' is part of a folder"),
        ("{'dapo.eps_high': [0.2, 0.3]}", ["ablate.names = 3"], "ablate.names = 3: must be a dictionary of texts"),
        ("{'dapo.eps_high': [0.2, 0.3]}", ["ablate.names = {'dapo.eps_high': '" + "x" * 130 + "'}"], "at most 120"),
        ("{'dapo.eps_high': [0.2, 0.3]}", ["compare.variants = [@grpo]"], "declares arms twice.*compare.variants"),
        ("{'dapo.eps_high': [0.2, 0.3]}", ["compare.arms = {'a': []}"], "declares arms twice.*compare.arms"),
        ("{'dapo.eps_high': [0.2, 0.3]}", ["compare.baseline = 'full'"], "compare.baseline = 'full' is not an arm"),
        ("{'dapo.eps_high': [0.2, 0.3]}", ["rloo.kl_coef = 0.1"], "'rloo.kl_coef' had no effect"),
    ],
)
def test_mistakes_are_named_before_anything_runs(axes: str, more: list[str], message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        study(axes, *more)


def test_more_than_a_thousand_arms_are_refused_with_their_number() -> None:
    many = ", ".join(f"'dapo.{name}': {list(range(1, 12))}" for name in ("eps_low", "eps_high", "filter_rounds"))
    with pytest.raises(GrpoLabError, match=r"makes 1,331 arms of 11 x 11 x 11 values"):
        study("{" + many + "}", design="grid")
    assert len(study("{" + many + "}", "ablate.number = 3", design="random").recipes) == 3


def test_a_design_without_axes_is_refused() -> None:
    with pytest.raises(GrpoLabError, match="ablate has no axes"):
        prepare_study([str(CONFIGS / "embedded.gin")], ["ablate.design = 'grid'"], [0])
