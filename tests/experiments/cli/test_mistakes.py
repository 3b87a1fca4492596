"""What cannot work is refused before anything runs, in the dry run alike, with the key, the place and the remedy."""

import re
from pathlib import Path

import pytest

from core import GrpoLabError
from experiments.cli.main import main
from experiments.study.configs import CONFIGS, find_config
from experiments.study.study import prepare_study

TWO = "include 'embedded.gin'\ncompare.variants = [@grpo, @rloo]\n"
ONE = "include 'embedded.gin'\n"
PLACE = r" \(.*study\.gin, line 3\)$"


def refusal(tmp_path: Path, text: str, *bindings: str) -> str:
    """The error message for a study's file."""
    file = tmp_path / "study.gin"
    file.write_text(text)
    with pytest.raises(GrpoLabError) as refused:
        prepare_study([str(file)], bindings)
    return str(refused.value)


WHOLE = "must be a whole number from 1 up"
LINES = [
    ("train.steps = 'x'", f"train.steps = 'x': {WHOLE}"),
    ("train.steps = 1e999", f"train.steps = inf: {WHOLE}"),
    ("train.steps = 1" + "0" * 40, f"train.steps = 1{'0' * 40}: {WHOLE}, at most 10,000,000"),
    ("train.prompts = 3.5", f"train.prompts = 3.5: {WHOLE}"),
    ("train.prompts = 'ten'", f"train.prompts = 'ten': {WHOLE}"),
    ("train.checkpoint_every = 2.5", f"train.checkpoint_every = 2.5: {WHOLE}"),
    ("train.stored_groups = -1", "train.stored_groups = -1: must be a whole number from 0 up"),
    ("train.threads = 100000", "train.threads = 100000: must be a whole number from 1 to 1,024"),
    ("train.generator = None", "train.generator = None: must be a generator, with brackets: @native()"),
    ("train.reward_weights = b'x'", "train.reward_weights = b'x': must be a list of numbers or None"),
    ("evaluation.temperature = -1", "evaluation.temperature = -1: must be a number above 0"),
    ("evaluation.seed = 'a'", "evaluation.seed = 'a': must be a whole number from 0 up"),
    ("evaluation.split = []", "evaluation.split = []: must be text in quotes or None"),
    ("adamw.max_grad_norm = 1e999", "adamw.max_grad_norm = inf: must be a number above 0"),
    ("adamw.betas = (2, 3)", "adamw.betas = (2, 3): must be two numbers from 0 to below 1"),
    ("adamw.betas = 'xy'", "adamw.betas = 'xy': must be two numbers from 0 to below 1"),
    ("adamw.eps = -1", "adamw.eps = -1: must be a number from 0 up"),
    ("adamw.warmup_steps = -5", "adamw.warmup_steps = -5: must be a whole number from 0 up"),
    ("policy.gradient_checkpointing = 'no'", "policy.gradient_checkpointing = 'no': must be True or False"),
    ("policy.lora_rank = 1000000", "policy.lora_rank = 1000000: must be a whole number from 0 to 4,096"),
    ("seq_mean_token_mean.count_empty = 'no'", "seq_mean_token_mean.count_empty = 'no': must be True or False"),
    ("native.retire_at = -1", "native.retire_at = -1: must be a number from 0 to 1"),
    ("compare.seeds = b'x'", "compare.seeds = b'x': must be a whole number from 0 up or a list of whole numbers"),
    ("compare.seeds = 1" + "0" * 40, "at most 9,223,372,036,854,775,807"),
    ("compare.margin = 1e40", "compare.margin = 1e+40: must be a number from 1e-09 to 1 or None"),
    ("compare.margin = 1e-320", "compare.margin = 1e-320: must be a number from 1e-09 to 1 or None"),
    ("compare.margin = 1e999", "compare.margin = inf: must be a number from 1e-09 to 1 or None"),
    ("compare.margin = True", "compare.margin = True: must be a number from 1e-09 to 1 or None"),
    ("compare.tuned = 5", "compare.tuned = 5: must be text in quotes or None"),
    ("compare.looks = ((1e999, .05),)", "compare.looks = ((inf, 0.05),): must be a list of tuples (a whole number"),
    ("claim.question = 3", "claim.question = 3: must be text in quotes"),
    ("ablate.design = []", "ablate has no axes"),
    ("train.steps = %STEPS", "train.steps refers to the macro %STEPS, which is not defined"),
    ("learning_rate = 3e-4", "'learning_rate = 0.0003' names no owner, and as a macro nothing refers to it"),
    ("a/train.steps = 3", "the binding 'a/train.steps' has no effect"),
    ("train.task = @a/chain_sums()", "train.task refers to '@a/chain_sums()': nothing here is called in a gin scope"),
    ("train.steps = " + "[" * 60, "gin: brackets are nested too deeply"),
    ("train.steps = [" + "[" * 3000, "gin: brackets are nested too deeply"),
    ("train.steps = float('nan')", "gin: Failed to parse token 'float'"),
    ("policy.model = models/mine", "gin: Failed to parse token 'models': text goes in quotes, 'like this'"),
    ("rloo.kl_coef = 0.1\ntrain.variant = @rloo()\nclip.eps_low = {'a': 1, 'a': 2}", "the key 'a' stands twice"),
    ("train.steps = 3\ntrain.steps = 4", "train.steps is bound twice, on lines 3 and 4, and the first"),
    ("dapo.eps_high = 0.3", "the binding 'dapo.eps_high' had no effect: 'dapo' is not used here, but grpo, rloo"),
]


@pytest.mark.parametrize(("line", "message"), LINES, ids=[line[:40] for line, _ in LINES])
def test_a_line_of_a_file_is_refused_with_key_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    error = refusal(tmp_path, TWO + line + "\n")
    assert message in error
    assert " at 0x" not in error
    assert re.search(r"study\.gin, line \d", error) or "has no axes" in error


def test_a_binding_of_the_command_line_is_refused_alike(tmp_path: Path) -> None:
    error = refusal(tmp_path, TWO, "train.steps = 'x'")
    assert error == "arm 'grpo': train.steps = 'x': must be a whole number from 1 up (command line)"


ARMS = [
    ("compare.arms = {'a': [], 'a': 'grpo.kl_coef = 0.1'}", "gin: the key 'a' stands twice in a dictionary"),
    ("compare.variants = [@grpo, @grpo]", "compare.variants has 'grpo' twice"),
    ("compare.variants = [@grpo]\ncompare.arms = {'grpo': []}", "two arms are called 'grpo'"),
    ("compare.arms = {'a': ['train.prompts = 2', 'train.prompts = 3']}", "arm 'a': train.prompts is bound twice"),
    ("compare.arms = {'a': 'learning_rate = 1e-4', 'b': []}", "arm 'a': 'learning_rate = 0.0001' names no owner"),
    ("compare.arms = {'a': 'train.prompts = 2.5', 'b': []}", "arm 'a': train.prompts = 2.5: must be a whole number"),
    ("compare.arms = {'a': 'include \"nope.gin\"', 'b': []}", "arm 'a': gin: there is no file 'nope.gin' to include"),
    ("compare.arms = {'a': 'train.variant = @train()', 'b': []}", "in a circle: @train() -> @train()"),
    ("ablate.axes = {'dapo.eps_low': [0.1, 'x']}\ntrain.variant = @dapo()", "arm 'eps_low=x': dapo.eps_low = 'x'"),
    ("ablate.axes = {'dapo.eps_low': [1, 2], 'dapo.eps_low': [3, 4]}", "the key 'dapo.eps_low' stands twice"),
    (
        "RATE = 'x'\nadamw.learning_rate = %RATE\ncompare.variants = [@grpo, @rloo]",
        "adamw.learning_rate = 'x': must be a number from 0 up",
    ),
]


@pytest.mark.parametrize(("text", "message"), ARMS, ids=[text[:40] for text, _ in ARMS])
def test_values_of_arms_axes_and_macros_are_refused_alike(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, ONE + text + "\n")


def test_a_circle_of_macros_is_refused(tmp_path: Path) -> None:
    assert "train.steps: the macro %A stands for itself" in refusal(
        tmp_path, TWO + "train.steps = %A\nA = %B\nB = %A\n"
    )


def test_axes_may_be_macros_and_arms_may_differ_by_one(tmp_path: Path) -> None:
    file = tmp_path / "study.gin"
    for text in (
        "ablate.axes = {'adamw.learning_rate': [%LOW, 3e-4]}\nLOW = 1e-4\n",
        "adamw.learning_rate = %RATE\nRATE = 1e-4\ncompare.arms = {'a': [], 'b': 'RATE = 3e-4'}\n",
    ):
        file.write_text(ONE + text)
        recipes = prepare_study([str(file)], []).recipes
        assert [recipe.optimizer.learning_rate for recipe in recipes.values()] == [1e-4, 3e-4]


def test_files_include_and_import_what_is_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in a folder without __init__.py, from elsewhere; and what a shipped file binds may be overridden."""
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    folder = tmp_path / "mine" / "deeper"
    folder.mkdir(parents=True)
    (folder / "module_beside_a_gin_file.py").write_text("")
    (folder / "more.gin").write_text("include 'embedded.gin'\nimport module_beside_a_gin_file\n")
    (folder / "study.gin").write_text("include 'more.gin'\ncompare.variants = [@grpo, @rloo]\n")
    monkeypatch.chdir(tmp_path)
    assert list(prepare_study(["mine/deeper/study.gin"], []).recipes) == ["grpo", "rloo"]
    (folder / "more.gin").write_text("include 'study.gin'\n")
    with pytest.raises(GrpoLabError, match=r"include 'study.gin' leads back .*more\.gin, line 1"):
        prepare_study(["mine/deeper/study.gin"], [])
    for text, message in {
        b"import module_of_nowhere\n": r"imports 'module_of_nowhere'.*study\.gin, line 1.*beside the gin file",
        b"train.steps = 1 # \xff\n": r"study\.gin cannot be read: 'utf-8' codec",
    }.items():
        (folder / "study.gin").write_bytes(text)
        with pytest.raises(GrpoLabError, match=message):
            prepare_study(["mine/deeper/study.gin"], [])
    (folder / "study.gin").write_text("import module_of_bad_manners\n")
    for code, message in ("1 / 0", "ZeroDivisionError: division by zero"), ("import sys; sys.exit()", "SystemExit"):
        (folder / "module_of_bad_manners.py").write_text(code)
        with pytest.raises(GrpoLabError, match=rf"importing 'module_of_bad_manners' fails .*line 1\): {message}"):
            prepare_study(["mine/deeper/study.gin"], [])


def test_a_binding_whose_part_was_exchanged_is_no_mistake(tmp_path: Path) -> None:
    """Of an included file, say; one that nothing ever chose is still missed."""
    (tmp_path / "base.gin").write_text(ONE + "train.task = @islanders()\nislanders.max_islanders = 4\n")
    file = tmp_path / "study.gin"
    file.write_text("include 'base.gin'\ntrain.task = @chain_sums()\ncompare.variants = [@grpo, @rloo]\n")
    assert len(prepare_study([str(file)], []).recipes) == 2
    error = refusal(
        tmp_path,
        "include 'base.gin'\ntrain.task = @chain_sums()\ncompare.variants = [@grpo, @rloo]\n",
        "stack_programs.max_operations = 3",
    )
    assert "'stack_programs.max_operations' had no effect" in error
    assert "(command line)" in error
    error = refusal(
        tmp_path,
        ONE + "compare.variants = [@grpo, @rloo]\n",
        "train.task = @islanders()",
        "policy.model = 'islanders'",
        "chain_sums.max_terms = 4",
    )
    assert "'chain_sums.max_terms' had no effect" in error


@pytest.mark.parametrize("config", sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.gin")))
def test_every_shipped_config_is_read_back_from_its_own_text(config: str) -> None:
    import core.parts.registry as registry

    with registry.config([CONFIGS / config], include_from=[CONFIGS]):
        text, before = registry.config_text(), registry.bindings_in_force()
    with registry.config(text=text):
        assert registry.bindings_in_force() == before


COMMANDS = [
    (["compare", "-c", "embedded", "-b", "compare.variants = [@grpo]", "--dry-run"], "compare has one arm, 'grpo'"),
    (["train", "-c", "embedded", "-b", "train.steps = 'x'"], "train.steps = 'x': must be a whole number from 1 up ("),
    (["train", "-b", "train.variant = @train()"], "references in a circle: @train() -> @train()"),
    (["train", "-b", "A = 3"], "'A = 3' names no owner"),
    (["train", "-c", "embedded", "-b", "policy.model = 'my model'"], "'my model': there is no such folder, and no"),
    (["compare", "-c", "demo", "--dry-run", "-b", "policy.model = 'a--b'"], "no hub model of that name (Cannot"),
    (["train", "--seed", "-1"], "--seed = -1: must be a whole number from 0 up"),
    (["train", "--seed", str(10**23)], "must be a whole number from 0 up, at most 9,223,372,036,854,775,807"),
    (["train", "--seed", "1.5"], "--seed = '1.5': must be a whole number from 0 up"),
    (["train", "--processes", "0"], "--processes = 0: must be a whole number from 1 to 4,096"),
    (["train", "--name", "a/../b"], "--name 'a/../b' names a folder: use at most"),
    (["sft", "--name", ".."], "--name '..' names a folder: use at most"),
    (["train", "--name", ""], "--name '' names a folder: use at most"),
    (["train", "-c", "dmeo"], "among the shipped): did you mean demo? (grpolab list configs shows all "),
    (["train", "-c", "/dev"], "config file not found: /dev"),
    (["compare", "-c", "demo", "--seeds", str(10**40)], "must be a number of seeds up to 100,000"),
    (["compare", "-c", "demo", "--workers", "0"], "--workers = 0: must be a whole number from 1 to 10,000"),
    (["lens", "rloo", "--rollouts", "0"], "--rollouts = 0: must be a whole number from 1 up"),
    (["lens", "rloo", "--seed", "x"], "--seed = 'x': must be a whole number from 0 up"),
    (["lens", "rloo", "-b", "gae.lam = 2"], "'gae.lam' had no effect"),
    (["lens", "whitened_gae", "-b", "whitened_gae.lam = 2"], "whitened_gae.lam = 2: must be a number from 0 to 1 ("),
    (["check", "gae", "-b", "gae.lam = 'x'"], "gae.lam = 'x': must be a number from 0 to 1 (command line)"),
    (["memory", "-b", "train.max_tokens = 0.5"], "train.max_tokens = 0.5: must be a whole number from 1 up (command"),
    (["memory", "--processes", "0"], "--processes = 0: must be a whole number"),
    (["tune", "-c", "demo", "--rates", "1e-4,1e999"], "tune.rates = [0.0001, inf]: must be a list of numbers above 0"),
    (["make-base", "--out", "x", "--steps", "-1"], "--steps = -1: must be a whole number from 1 up"),
    (["preferences", "--out", "."], "--out . is no file that can be written"),
    (["preferences", "--out", "/dev/null"], "--out /dev/null is no file that can be written"),
    (["preferences", "--out", "x", "--samples", "1"], "--samples = 1: must be a whole number from 2 up"),
    (["preferences", "--out", "x", "--annotator-accuracy", "nan"], "must be a number from 0 to 1"),
    (["pass-rates", "--out", "", "--samples", "2"], "is no file that can be written"),
    (["judge", "--questions", "0"], "--questions = 0: must be a whole number from 1 up"),
    (["watch", "x", "--port", "99999"], "--port = 99999: must be a whole number from 0 to 65,535"),
    (["analyze", "x.csv", "--margin", "1e-160"], "--margin = 1e-160: must be a number from 1e-30 up"),
    (["analyze", "x.csv", "--margin", "1e308"], "--margin = 1e+308: must be a number from 1e-30 up, at most 1e+30"),
    (["analyze", "x.csv", "--alpha", "0.5"], "--alpha = 0.5: must be a number above 0 and below 0.5"),
    (["analyze", "x.csv", "--floor", "inf"], "--floor = inf: must be a number"),
    (["describe", ""], "unknown part '': grpolab list shows all"),
    (["describe", "mine.gin"], "file not found: mine.gin"),
    (["describe", str(CONFIGS / "demo.gin")], "demo.gin is no .py file, and parts are registered in one"),
    (["list", "value_loss"], "did you mean value_losses"),
    (["describe", "train", "-b", "train.steps = 'x'"], "train.steps = 'x': must be a whole number from 1 up ("),
    (["list", "-c", "nope.gin"], "config file not found: nope.gin"),
    (["list", "config"], "did you mean configs"),
]


@pytest.mark.parametrize(("arguments", "message"), COMMANDS, ids=[" ".join(a)[:50] for a, _ in COMMANDS])
def test_a_command_is_refused_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("grpolab: ")
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_misspelt_config_lists_near_names_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GrpoLabError) as near_ones:
        find_config("dapo_publish.gin")
    hint = str(near_ones.value).partition("): ")[2]
    assert re.fullmatch(
        r"did you mean dapo_published or (\w+_published) or (\w+_published)\? \(grpolab list configs shows all \d+\)",
        hint,
    )
    with pytest.raises(GrpoLabError, match=r"among the shipped\): grpolab list configs shows all \d+$"):
        find_config("zzzzzzzz")


def test_the_shipped_configs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "configs"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "configs"
    names = [line.split()[0] for line in lines]
    assert sorted(names) == sorted(str(path.relative_to(CONFIGS))[: -len(".gin")] for path in CONFIGS.rglob("*.gin"))
    assert [CONFIGS / f"{name}.gin" for name in names] == [Path(find_config(name)) for name in names]
    assert any(re.fullmatch(r"  demo +Which of the five critic-free variants learns most .*", line) for line in lines)


def test_all_that_is_missing_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a task lacks, and what the generator would lack later; and no GPU."""
    import importlib.util
    from typing import Any

    import torch

    from core import task

    @task
    def task_without_its_package() -> Any:
        """Needs what is not there."""
        raise GrpoLabError("needs the package datasets")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    error = refusal(tmp_path, TWO, "train.task = @task_without_its_package()", "train.generator = @vllm()")
    assert error.startswith("arm 'grpo': needs the package datasets; and train.generator = @vllm() needs vLLM")
    assert error.endswith("(no GPU is seen here)")


def test_a_model_of_a_hub_that_cannot_be_reached_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket
    import urllib.request

    def nowhere(address: tuple[str, int], seconds: float) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", nowhere)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.chdir(tmp_path)
    for command in (["train", "-c", "embedded"], ["compare", "-c", "demo", "--dry-run"]):
        assert main([*command, "-b", "policy.model = 'nobody/no-such-model'"]) == 2
        assert re.search(
            r"policy\.model = 'nobody/no-such-model': there is no such folder.* the cache, and .* cannot "
            r"be reached \(.*\): give a folder",
            capsys.readouterr().err,
        )
    assert main(["train", "-c", "embedded", "-b", "policy.model = 'embedded'", "-b", "train.steps = 0"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "-b", "policy.model = './tinny'"], "there is no such folder (did you mean tiny?)"),
        (["train", "-b", "policy.model = 'embeded'"], "(did you mean embedded?)"),
        (["compare", "-c", "demo", "--dry-run", "-b", "policy.model = 'tinny'"], "(did you mean tiny?)"),
        (
            ["compare", "-c", "demo", "--dry-run", "-b", "grpo.advantage = 'group_meen'"],
            "must be a registered advantage, @name: did you mean @group_mean ",
        ),
        (
            ["compare", "-c", "demo", "--dry-run", "-b", "compare.metric = 'accurcy'"],
            "did you mean test/accuracy ",
        ),
        (["analyze", "result.csv"], "cannot read result.csv: No such file or directory: did you mean results.csv?"),
    ],
)
def test_a_misspelt_value_is_answered_with_near_ones(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "results.csv").touch()
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
