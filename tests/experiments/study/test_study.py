"""Studies: what is declared, how arms become gin bindings, and every mistake before anything runs."""

import json
from pathlib import Path

import pytest

from core import SETTINGS, GrpoLabError
from core.loop.recipe import Recipe
from core.parts.bindings import bindings_used, refuse_unused
from core.parts.registry import bindings_in_force, config
from experiments.setup import import_parts
from experiments.study.configs import CONFIGS
from experiments.study.declare import declare
from experiments.study.study import (
    Study,
    prepare_study,
)

import_parts()
EMBEDDED = str(CONFIGS / "embedded.gin")


def study(*bindings: str, seeds: tuple[int, ...] = (0, 1)) -> Study:
    return prepare_study([EMBEDDED], bindings, seeds)


MADE_FIRST = {
    "r1_pipeline": ["cold_start/sft/seed=0/checkpoint"],
    "against_base": ["cold_start_sums/sft/seed=0/checkpoint", "reward_model"],
}
"""Shipped studies that start from what other commands make: folders in `runs`."""


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.gin")), ids=lambda path: path.stem)
def test_every_shipped_config_is_built_and_none_of_its_bindings_is_idle(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shipped file is a whole study, a whole recipe, or published settings to go after one."""
    if path.stem in MADE_FIRST:  # by the commands in its header
        monkeypatch.chdir(tmp_path)
        for made_first in MADE_FIRST[path.stem]:
            (tmp_path / "runs" / made_first).mkdir(parents=True)
        (tmp_path / "runs" / "pairs.jsonl").write_text('{"prompt": "1+1=", "chosen": ">2.", "rejected": ">3."}\n')
        monkeypatch.setattr("experiments.study.study.start", lambda *_: {})  # a reward that is a model wants it there
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": f"{n} + 1 = ?", "answer": n + 1}) + "\n" for n in range(99)))
    # the user's to give, or to download
    own = [f"files.path = '{questions}'"] if path.stem == "r1_zero_model" or path.parent.name == "gpu" else []
    files = [EMBEDDED, str(path)] if path.stem.endswith("_published") else [str(path)]
    with config(files, own, include_from=[CONFIGS]):
        is_study = any(selector == "settings.compare" for selector, _ in bindings_in_force())
        if not is_study:
            recipe: Recipe = SETTINGS["train"]()
            refuse_unused(bindings_in_force(), bindings_used(), recipe.parts, [recipe.variant.name])
    if is_study:
        # the model may be one that is not installed here
        made = prepare_study([str(path)], ["policy.model = 'embedded'", *own], [0])
        if path.stem not in ("group_size", "group_size_2", "mismatch", "mismatch_2", *MADE_FIRST):
            assert all(made.varies(label) == [] for label in made.recipes), "shipped studies differ in maths alone"


def test_the_values_of_the_demo_arrive() -> None:
    demo = prepare_study([str(CONFIGS / "demo.gin")], [], range(5))
    assert list(demo.recipes) == ["grpo", "dr_grpo", "dapo", "rloo", "remax"]
    for recipe in demo.recipes.values():
        assert (recipe.steps, recipe.prompts, recipe.group_size) == (40, 16, 8)
        assert recipe.optimizer.learning_rate == 3e-4
    assert demo.declaration["baseline"] == "grpo"
    assert demo.declaration["seeds"] == [0, 1, 2, 3, 4]
    assert demo.recipes["dapo"].variant.objective.set_values["eps_high"] == 0.28


STALE, NOISY = "train.staleness = 8", "train.generator = @perturbed()"


@pytest.mark.parametrize(
    ("base", "arm"),
    [
        ([STALE], [STALE, "train.correction = @token_truncated"]),
        ([STALE], [STALE, "train.correction = @token_truncated", "token_truncated.cap = 5.0"]),
        ([STALE], [STALE, "train.correction = @rejection", "train.denominator = 'kept'"]),
        ([STALE], [STALE, "train.anchor = 'sampler'"]),
        ([STALE], ["train.staleness = @uniform_age()", "uniform_age.most = 4"]),
        ([], [NOISY, "perturbed.divergence = 0.01"]),
        ([NOISY, "perturbed.divergence = 0.01"], [NOISY, "perturbed.divergence = 0.1"]),
    ],
)
def test_what_comes_with_its_settings_is_one_respect(base: list[str], arm: list[str]) -> None:
    assert study(f"compare.arms = { ({'base': base, 'arm': arm})!r}").confounded() == []


@pytest.mark.parametrize(
    ("base", "arm", "respects"),
    [
        ([STALE], ["train.correction = @token_truncated"], "correction; train.staleness"),
        ([STALE], [STALE, "train.anchor = 'sampler'", "train.correction = @rejection"], "correction; anchor"),
        ([STALE], ["train.staleness = @uniform_age()", "train.group_size = 4"], "train.group_size; train.staleness"),
        (
            [NOISY, "perturbed.divergence = 0.01"],
            [NOISY, "perturbed.divergence = 0.1", "train.group_size = 4"],
            "perturbed.divergence; train.group_size",
        ),
    ],
)
def test_what_was_exchanged_apart_is_counted_apart(base: list[str], arm: list[str], respects: str) -> None:
    (sentence,) = study(f"compare.arms = { ({'base': base, 'arm': arm})!r}").confounded()
    assert f"differ in 2 respects ({respects}): " in sentence


def test_published_settings_arrive() -> None:
    with config([EMBEDDED, CONFIGS / "dapo_published.gin"]):
        recipe: Recipe = SETTINGS["train"]()
    assert (recipe.prompts, recipe.group_size, recipe.updates) == (512, 16, 16)
    assert recipe.optimizer.rate(10, 100) == pytest.approx(0.5e-6)
    with config([EMBEDDED, CONFIGS / "grpo_published.gin"]):
        recipe = SETTINGS["train"]()
    assert recipe.variant.uses_kl
    assert recipe.variant.kl_coef == 0.04
    assert [part.name for part in recipe.providers] == ["reference"]


def test_an_arm_is_a_label_with_bindings_on_the_whole_run() -> None:
    made = study(
        "compare.arms = {'small': 'train.group_size = 2', 'wide': ['clip.eps_high = 0.4', 'train.prompts = 3']}"
    )
    assert made.recipes["small"].group_size == 2
    assert made.recipes["wide"].prompts == 3
    assert made.recipes["wide"].variant.objective.set_values["eps_high"] == 0.4
    assert made.recipes["small"].variant.objective.set_values["eps_high"] == 0.2


def test_what_declares_a_study_is_not_part_of_a_runs_config() -> None:
    one = study("compare.variants = [@grpo]", "compare.margin = 0.1")
    other = study("compare.variants = [@grpo, @rloo]", "compare.margin = 0.2")
    assert one.config == other.config
    assert one.hash != other.hash


def test_seeds_are_declared_and_not_changed_afterwards(tmp_path: Path) -> None:
    first = study("compare.variants = [@grpo]", seeds=(0, 1))
    declare(first, tmp_path, "command")
    written = (tmp_path / "study.json").read_bytes()
    declare(first, tmp_path, "the same again")
    with pytest.raises(GrpoLabError, match=r"declared differently \(different: seeds\).*--out"):
        declare(study("compare.variants = [@grpo]", seeds=(0, 1, 2)), tmp_path, "more")
    assert (tmp_path / "study.json").read_bytes() == written
    record = json.loads(written)
    record["declaration"]["alpha"] = 0.1  # by hand, and the hash left as it was
    (tmp_path / "study.json").write_text(json.dumps(record))
    with pytest.raises(GrpoLabError, match=r"declared differently \(different: alpha\)"):
        declare(first, tmp_path, "the same again")


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        (["compare.variants = [@grpoo]"], "did you mean grpo"),
        (["compare.variants = [@grpo]", "grpo.aggregatr = @token_mean"], "did you mean aggregator"),
        (["compare.variants = [@rloo]", "grpo.aggregator = @token_mean"], "'grpo' is not used here, but rloo"),
        (["compare.variants = [@dapo]", "clip.eps_high = 0.3"], "bind 'dapo.eps_high' instead"),
        (["compare.variants = [@rloo]", "clip.eps_high = 0.3"], r"'clip.eps_high' had no effect.*policy_gradient"),
        (["compare.arms = {'a': 'rloo.aggregator = @token_mean'}"], "arm 'a'.*'rloo' is not used here, but grpo"),
        (["compare.variants = [@grpo]", "compare.baseline = 'rlo'"], "compare.baseline = 'rlo' is not an arm"),
        (["compare.variants = [@grpo]", "compare.metric = 'accuracy'"], "compare.metric = 'accuracy'"),
        (["compare.variants = [@grpo]", "train.rewards = [@math_answer]", "math_answer.form = 'boxd'"], "be 'boxed', "),
        (
            ["compare.variants = [@grpo]", "evaluation.final_samples = 48", "compare.scalar = 'auc'"],
            r"arm 'grpo': with compare\.scalar = 'auc' a score rests on all evaluations",
        ),
        (
            ["compare.variants = [@grpo]", "evaluation.final_samples = 48", "compare.metric = 'test/greedy_accuracy'"],
            "rests on greedy answers, one a question",
        ),
        (
            ["compare.variants = [@grpo]", "compare.metric = 'test/adjusted_accuracy'"],
            "takes the surprise of every answer: bind evaluation.surprise = True",
        ),
        (["compare.variants = [@grpo]", "train.group_size = 1"], "group_size_mean_std|defined from 2 samples"),
        (["compare.variants = [@grpo]", "train.variant = @grpo"], r"must be a variant, with brackets: @grpo\(\)"),
        (["compare.variants = [@grpo]", "grpo.advantage = @clip"], "must be a registered advantage, one of @"),
        (["compare.variants = [@grpo]", "train.minibatches = 17"], "more than the 16 groups"),
        (["compare.variants = [@grpo]", "adamw.schedule = 'cosinus'"], "must be 'constant', 'linear' or 'cosine'"),
        (["compare.variants = [@grpo]", "policy.dtype = 'fp32'"], "must be 'float32', 'bfloat16' or 'float16'"),
        (["compare.arms = {'../x': []}"], "names a folder"),
        (["compare.arms = {'report.html': []}"], "of its own under that name"),
        (["compare.arms = {'study.json': []}"], "of its own under that name"),
        (["compare.arms = {'tables': []}"], "of its own under that name"),
        (["compare.arms = {'figures': []}"], "of its own under that name"),
        ([f"compare.arms = {{'{'x' * 121}': []}}"], "at most 120"),
        ([f"compare.arms = {{'{'ü' * 61}': []}}"], "at most 120"),
        ([], "has no arms"),
        (["compare.arms = {'a': [], 'b': 'train.steps = 7'}"], "budget must be the same"),
        (["compare.variants = [@grpo]", "compare.metric = 'tset/accuracy'"], "no test suite 'tset'.*mean test"),
        (
            ["compare.variants = [@grpo]", "train.steps = 6", "evaluation.every = 5"],
            r"bind evaluation\.every = 2 \(now 5\) or train\.steps = 15 \(now 6\)",
        ),
        (["compare.variants = [@grpo]", "train.steps = 2"], r"bind train\.steps = 3 and evaluation\.every = 1"),
        (
            ["compare.variants = [@grpo]", "train.steps = 2", "evaluation.every = 1"],
            r"bind train\.steps = 3 \(now 2\)\.",
        ),
        (["compare.variants = [@grpo]", f"compare.metric = '{'a' * 5000}'"], r"metric = 'aaaaa+ \.\.\. a+': must be"),
        (["compare.variants = [@grpo]", "compare.metric = 'test_long/accuracy'"], "'test_long' would be evaluated 1 "),
        (["compare.variants = [@grpo]", "evaluation.every = 20"], "evaluated 2 times.*bind evaluation"),
        (["compare.variants = [@grpo]", "evaluation.split = 'tets'"], "no split 'tets'"),
        (["compare.variants = [@grpo]", "compare.alpha = 0.6"], "must be a number above 0 and below 0.5"),
        (["compare.variants = [@grpo]", "policy.model = '/nowhere'"], "there is no such folder"),
        (["compare.variants = [@grpo]", "compare.name = '../up'"], "compare.name '../up' names a folder"),
        (["compare.variants = ['grpo']"], r"compare.variants = \['grpo'\]: must be a list of registered variants"),
        (["compare.arms = {'a': @grpo()}"], "compare.arms = {'a': a Variant}: must be a dictionary of texts"),
        (["compare.variants = [@grpo]", "train.task = @chain_sums"], r"a task, with brackets: @chain_sums\(\)"),
        (["compare.variants = [@grpo]", "train.steps = '40'"], "train.steps = '40': must be a whole number from 1 up"),
        (["compare.arms = {'a': [], 'k2': 'grpo.kl = @k2'}"], "arm 'k2' does the same as arm 'a'"),
        (["compare.arms = {'a': [], 'b': \"train.denominator = 'kept'\"}"], "arm 'b' does the same as arm 'a'"),
    ],
)
def test_mistakes_are_named_before_anything_runs(bindings: list[str], message: str) -> None:
    if any("train.variant = @grpo" in b for b in bindings):
        bindings = ["compare.arms = {'a': []}", *bindings[1:]]
    with pytest.raises(GrpoLabError, match=message):
        study(*bindings)


def test_a_bad_line_in_a_file_is_named_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.gin"
    file.write_text("include 'embedded.gin'\ncompare.variants = [@grpo]\ngrpo.advantag = @group_mean\n")
    with pytest.raises(GrpoLabError, match=r"did you mean advantage.*mine.gin, line 3"):
        prepare_study([str(file)], [], [0])


def test_a_study_says_what_its_arms_vary() -> None:
    made = study(
        "compare.arms = {'base': [], 'maths': 'clip.eps_high = 0.3', 'warm': 'train.temperature = 1.2', "
        "'more': 'train.prompts = 8', 'other': 'policy.model = \"elsewhere\"'}"
    )
    assert made.varies("base") == made.varies("maths") == []
    assert made.varies("warm") == ["first_rollout"]
    assert made.varies("more") == ["first_rollout", "prompts"]
    assert made.varies("other") == ["first_rollout", "initial_weights", "prompts"]
    made = study(
        "compare.arms = {'base': [], 'imitates': ['train.source = @worked_solutions()', "
        "'train.group_size = 1', 'train.variant = @sft()']}"
    )
    assert made.varies("imitates") == ["first_rollout", "prompts"]
