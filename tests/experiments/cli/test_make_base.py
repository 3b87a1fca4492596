"""The embedded bases: made as declared, small, and neither able nor helpless."""

import ast
import operator
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from core import GrpoLabError
from core.environments.tasks.lookups import last_key, lookups
from core.generation.base import Request
from core.generation.episodes import Budgets, Episodes
from core.generation.native import native
from core.model.loading import ASSETS, embedded_models
from core.model.policy import PolicySettings, load_policy
from core.parts.environments import Turn
from core.parts.problems import Problem
from core.randomness import key
from experiments.bases import BASES
from experiments.cli.main import main
from experiments.cli.make_base import make_base, make_tokenizer, pieces, rows_of


@pytest.mark.parametrize("name", BASES)
def test_alphabets_write_every_prompt_and_response(name: str) -> None:
    base, rng = BASES[name], random.Random(0)
    tokenizer, task = make_tokenizer(base.alphabet), BASES[name].task()
    for index in range(200):
        problem = task.problem("train", 0, index)
        written = pieces(base.mixture(problem, rng))
        text = str(problem.prompt) + "".join(written)
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert len(ids) == len(text)
        for place, piece in enumerate(written):  # the policy ends what it writes; what it reads has no end in it
            assert piece.find(tokenizer.eos_token) == (len(piece) - 1 if place % 2 == 0 else -1)


def test_what_is_observed_is_not_learnt() -> None:
    """By hand, with '.' as 0, a 1, b 2 and so on: of each dialogue only the first and third piece after the prompt."""
    tokens, labels = rows_of(make_tokenizer("abcd"), [("ab", "c.", "d", "a."), ("a", "b.")])
    assert tokens.tolist() == [[1, 2, 3, 0, 4, 1, 0], [1, 2, 0, 0, 0, 0, 0]]
    assert labels.tolist() == [[-100, -100, 3, 0, -100, 1, 0], [-100, 2, 0, -100, -100, -100, -100]]


def test_a_base_is_a_function_of_its_seed(tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {}
    for label, seed in (("one", 0), ("same", 0), ("other", 1)):
        seen = losses.setdefault(label, [])

        def note(step: int, loss: float, seen: list[float] = seen) -> None:
            seen.append(loss)

        folder = make_base("islanders", tmp_path / label, seed=seed, steps=3, rows=4, report=note)
        assert (folder / "model.safetensors").stat().st_size < 4e6
    assert losses["one"] == losses["same"] != losses["other"]
    weights = [(tmp_path / label / "model.safetensors").read_bytes() for label in ("one", "same", "other")]
    assert weights[0] == weights[1] != weights[2]


def test_an_unknown_task_is_named_with_those_that_have_a_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(GrpoLabError, match="no base for the task 'islander': did you mean islanders"):
        make_base("islander", tmp_path)
    assert main(["make-base", "--task", "islander", "--out", str(tmp_path)]) == 2
    assert "did you mean islanders" in capsys.readouterr().err


def test_the_bases_are_found_by_name() -> None:
    assert embedded_models() == ("embedded", "islanders", "lookups", "stack_programs")
    assert all(sum(f.stat().st_size for f in (ASSETS / name).iterdir()) < 4e6 for name in embedded_models())


def computes(problem: Problem, program: str) -> bool:
    """Whether a program of assignments and a return gives what the tests expect, by walking its syntax tree.

    No sandbox and no exec: a base may well write 9**9**9.
    """

    def value(node: ast.expr, names: dict[str, int]) -> int:
        if isinstance(node, ast.BinOp):
            sign = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}[type(node.op)]
            return int(sign(value(node.left, names), value(node.right, names)))
        return names[node.id] if isinstance(node, ast.Name) else int(ast.literal_eval(node))

    def run(names: dict[str, int]) -> int | None:
        (function,) = ast.parse(program).body
        assert isinstance(function, ast.FunctionDef)
        for line in function.body:
            if isinstance(line, ast.Return):
                assert line.value is not None
                return value(line.value, names)
            assert isinstance(line, ast.Assign)
            (target,) = line.targets
            assert isinstance(target, ast.Name)
            names[target.id] = value(line.value, names)
        return None

    try:
        return all(run(dict(zip("xy", t["args"], strict=True))) == t["expected"] for t in problem.data["tests"])
    except (SyntaxError, LookupError, ValueError, AssertionError):
        return False


def names_them(problem: Problem, response: str) -> bool:
    """Whether the answer is the problem's, letter by letter: the base always writes it in the order of the prompt."""
    return response.rpartition(">")[2] == problem.answer


@pytest.mark.parametrize(("name", "is_right"), [("islanders", names_them), ("stack_programs", computes)])
def test_the_bases_blurt_and_work_out(name: str, is_right: Callable[[Problem, str], bool]) -> None:
    """Both styles occur; what is blurted is mostly wrong, what is worked out mostly right."""
    policy, task = load_policy(PolicySettings(name, "float32")), BASES[name].task()
    problems = [task.problem("test", 0, i) for i in range(60)]
    request = Request([policy.tokens(p) for p in problems], samples=4, max_tokens=56, noise_key=key(0, "eval"))
    (drawn,) = native().generate(policy, [request])
    rows = zip(drawn.tokens.flatten(0, 1), drawn.mask.flatten(0, 1), strict=True)
    texts = policy.texts([tokens[mask] for tokens, mask in rows])
    blurted = torch.tensor([text.startswith(">") if name == "islanders" else ";" not in text for text in texts])
    right = torch.tensor([is_right(problems[i // 4], text) for i, text in enumerate(texts)])
    assert 0.5 < blurted.float().mean() < 0.8
    assert right[blurted].float().mean() < 0.45
    assert right[~blurted].float().mean() > 0.65


def episodes_of(split: str, max_turns: int) -> tuple[list[Problem], list[tuple[Turn, ...]]]:
    """What the base of `lookups` does with 80 problems, 4 times each: [80], [320]."""
    policy, task = load_policy(PolicySettings("lookups", "float32")), lookups()
    problems = [task.problem(split, 0, i) for i in range(80)]
    played = Episodes(policy, task.environment, problems, range(80), 4, Budgets(48, max_turns, 60.0), [""] * 80)
    prompts = [policy.tokens(p) for p in problems]
    native().generate(policy, [Request(prompts, 4, 48, noise_key=key(0, "eval"), episodes=played)])
    return problems, [tuple(turns) for turns in played.transcripts]


def share_right(problems: list[Problem], transcripts: list[tuple[Turn, ...]]) -> float:
    right: list[bool] = [last_key(problems[i // 4], turns[-1].action).correct for i, turns in enumerate(transcripts)]
    return sum(right) / len(right)


def test_the_base_of_lookups_guesses_and_asks() -> None:
    """Half-able: it mostly guesses or miscounts; of what it asks for most is right; in one turn it can only guess."""
    problems, transcripts = episodes_of("test", 8)
    asks = [turns[0].action.startswith("?") for turns in transcripts]
    assert 0.4 < sum(asks) / 320 < 0.6
    assert 0.25 < share_right(problems, transcripts) < 0.45
    calls = [turn.call for turns in transcripts for turn in turns if turn.call is not None]
    assert 0.005 < calls.count(False) / len(calls) < 0.06
    in_one_turn = share_right(*episodes_of("test", 1))
    assert in_one_turn < 0.1
    longer = share_right(*episodes_of("test_long", 8))
    assert in_one_turn < longer < share_right(problems, transcripts)
