"""What of a variant holds inside TRL and verl: cards checked by hand against what is registered."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from core import ADVANTAGES, AGGREGATORS, CORRECTIONS, FILTERS, KLS, Variant
from core.errors import GrpoLabError
from experiments.bridges.support import ENGINES, Engine, Line, reads_verdict, refuse_impossible, support
from experiments.bridges.variant import variant_of


def card(engine: Engine, variant: Variant | str) -> list[tuple[str, str]]:
    """Subjects and degrees."""
    made = variant_of(variant) if isinstance(variant, str) else variant
    return [(line.subject, line.degree) for line in support(engine, made)]


def why(lines: Sequence[Line], subject: str) -> str:
    (line,) = [line for line in lines if line.subject == subject]
    return line.why


DAPO = [
    ("advantage group_mean_std", "exact"),
    ("objective clip", "exact"),
    ("aggregator token_mean", "exact"),
    ("filter nonuniform", "approximate"),
    ("filter nonuniform needs correct", "exact"),
    ("shaping soft_overlong", "exact"),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_dapo_is_exact_but_for_the_groups_that_are_not_sampled_anew(engine: Engine) -> None:
    assert card(engine, "dapo") == DAPO
    one_round = variant_of("dapo", bindings=["dapo.filter_rounds = 1"])
    assert card(engine, one_round) == [(subject, "exact") for subject, _ in DAPO]


def test_remax_needs_a_greedy_response_which_trl_gives_and_verl_does_not() -> None:
    parts = ["advantage greedy_baseline", "objective policy_gradient", "aggregator token_mean"]
    need = "advantage greedy_baseline needs greedy_rewards"
    rest = [(subject, "exact") for subject in parts[1:]]
    assert card("trl", "remax") == [(parts[0], "exact"), (need, "exact"), *rest]
    assert card("verl", "remax") == [(parts[0], "exact"), (need, "not possible"), *rest]


@pytest.mark.parametrize("engine", ENGINES)
def test_ppo_needs_a_critic_which_no_bridge_trains(engine: Engine) -> None:
    with pytest.raises(GrpoLabError) as refused:
        refuse_impossible(engine, variant_of("ppo"))
    assert str(refused.value) == (
        f"variant 'ppo' cannot be trained inside {'TRL' if engine == 'trl' else 'verl'}: advantage whitened_gae needs "
        "values: the bridge trains no critic; value_loss clipped_squared_error: the bridge trains no critic"
    )
    refuse_impossible(engine, variant_of("grpo"))


def test_a_loss_that_couples_the_rows_of_a_group_is_possible_where_they_stay_together() -> None:
    degrees = {"trl": ("exact", "steps_per_generation = 1"), "verl": ("not possible", "spreads the rows of a group")}
    for engine in ENGINES:
        degree, reason = degrees[engine]
        assert ("objective dpo_sigmoid", degree) in card(engine, "dpo")
        assert reason in why(support(engine, variant_of("dpo")), "objective dpo_sigmoid")


def test_a_preparation_on_all_rows_of_a_step_is_approximate_in_verl_after_the_first() -> None:
    reasons = {"trl": "one more forward pass", "verl": "exact where there is one step to a rollout"}
    for engine, degree in zip(ENGINES, ("exact", "approximate"), strict=True):
        assert ("objective cov_kl", degree) in card(engine, "kl_cov")
        assert reasons[engine] in why(support(engine, variant_of("kl_cov")), "objective cov_kl")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_mean_over_micro_batches_is_not_possible(engine: Engine) -> None:
    variant = replace(variant_of("grpo"), aggregator=AGGREGATORS["token_mean_local"])
    assert ("aggregator token_mean_local", "not possible") in card(engine, variant)


@pytest.mark.parametrize("engine", ENGINES)
def test_kl_and_correction_say_what_has_to_be_switched_on(engine: Engine) -> None:
    names = {"trl": ("loads a reference", "use_vllm"), "verl": ("use_kl_loss=True", "calculate_log_probs=True")}[engine]
    variant = variant_of("grpo", bindings=["grpo.kl_coef = 0.1"])
    lines = support(engine, replace(variant, correction=CORRECTIONS["token_truncated"]))
    assert names[0] in why(lines, "kl k3 in the loss")
    assert names[1] in why(lines, "correction token_truncated")
    assert {line.degree for line in lines} == {"exact"}
    assert "kl" not in " ".join(subject for subject, _ in card(engine, "grpo")), "a coefficient of 0 loads nothing"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_coefficient_adapts_in_any_trainer(engine: Engine) -> None:
    variant = Variant(
        advantage=ADVANTAGES["group_mean"],
        objective=variant_of("grpo").objective,
        aggregator=AGGREGATORS["token_mean"],
        kl=KLS["k1"],
        kl_coef=0.1,
        kl_place="reward",
        kl_target=6.0,
        truncated="mask",
        entropy_coef=0.01,
        reward_clip=5.0,
    )
    settings = [("truncated = 'mask'", "exact"), ("entropy_coef", "exact"), ("reward_clip", "exact")]
    assert card(engine, variant)[-5:] == [("kl k1 in the reward", "exact"), ("kl_target", "exact"), *settings]


def test_estimators_of_the_whole_rollout_and_with_a_memory_are_exact() -> None:
    for engine in ENGINES:
        lines = card(engine, replace(variant_of("grpo"), advantage=ADVANTAGES["group_mean_batch_std"]))
        assert lines[1] == ("advantage group_mean_batch_std reads the whole rollout", "exact")
        lines = card(engine, replace(variant_of("grpo"), advantage=ADVANTAGES["running_baseline"]))
        assert lines[1] == ("advantage running_baseline remembers", "exact")


def test_a_filter_that_reads_the_verdict_is_known_by_its_code() -> None:
    assert [name for name, part in FILTERS.items() if reads_verdict(part)] == ["nonuniform"]


PROGRAM = """
import sys
from experiments.bridges.support import ENGINES, support
from experiments.bridges.variant import variant_of
for engine in ENGINES:
    for name, lines in (("running_right", 4), ("with_novelty", 2)):
        variant = variant_of("grpo", modules=["own_parts"], bindings=[f"grpo.advantage = @{name}"])
        for line in support(engine, variant)[:lines]:
            print(line.subject, "=", line.degree)
print(*sorted({"trl", "verl", "transformers", "ray"} & sys.modules.keys()))
"""
OWN = """
from core import advantage, provider

@provider(fills="novelty", shape="[P, G]", cost="nothing")
def novelty(run):
    '''How new a response is.'''

@advantage(needs=("novelty",))
def with_novelty(batch):
    '''Reward and novelty.'''
    return batch.rewards + batch.require("novelty")

@advantage(scope="batch", state=dict, needs=("correct",))
def running_right(batch, state):
    '''Right or wrong, minus the share that was right before.'''
    share = state.get("share", 0.0)
    right = batch.require("correct").float()
    return right - share, {"share": float(right.mean())}
"""


def test_a_users_own_part_gets_its_lines_with_no_engine_imported(tmp_path: Path) -> None:
    (tmp_path / "own_parts.py").write_text(OWN)
    program = PROGRAM
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    of_both = [
        "advantage running_right = exact",
        "advantage running_right needs correct = exact",
        "advantage running_right reads the whole rollout = exact",
        "advantage running_right remembers = exact",
        "advantage with_novelty = exact",
        "advantage with_novelty needs novelty = not possible",
    ]
    assert done.stdout.splitlines() == [*of_both, *of_both, ""]
