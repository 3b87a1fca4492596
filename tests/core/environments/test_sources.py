"""Data sets as sources: what is met when, as which tokens and labels, and every mistake with its file and line."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from core import SETTINGS, TASKS, VARIANTS, GrpoLabError
from core.environments.datasets.pairs import preference_pairs
from core.environments.datasets.solutions import worked_solutions
from core.environments.tasks.chain_sums import restate
from core.environments.tasks.files import files
from core.loop.loss import compute_advantages
from core.loop.metrics import step_record
from core.loop.recipe import Recipe
from core.loop.rollout import (
    draw_problems,
    roll_out,
    rollout_context,
)
from core.loop.run_state import RunState
from core.loop.source import RolloutContext, Source
from core.loop.update import UpdateMetrics, accumulate_gradients
from core.model.loading import EMBEDDED
from core.model.policy import Policy, PolicySettings, load_policy
from core.parts.registry import config
from experiments.memory.forecast import forecast

SETTING = """
train.task = @chain_sums()
train.generator = @native()
train.prompts = 4
train.max_tokens = 40
"""
PAIRS = [{"prompt": f"{n}+1=", "chosen": f">{n + 1}", "rejected": f">{n + 2}", "answer": n + 1} for n in range(5)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run_of(policy: Policy, source: Source, variant: str = "sft", seed: int = 0, **changes: Any) -> RunState:
    with config(text=SETTING + f"train.variant = @{variant}()\n"):
        recipe: Recipe = SETTINGS["train"]()
    recipe = replace(recipe, source=source, group_size=source.group_size, **changes)
    return RunState(recipe, seed, policy)


def test_worked_solutions_by_hand(embedded: Policy) -> None:
    # 4+8 = 12 and 2+7 = 9, modulo 10
    assert restate("4+8+7=") == "4+8=2;2+7=9;>9"
    sampled = worked_solutions().sample(rollout_context(run := run_of(embedded, worked_solutions()), 3, 0))
    assert sampled.problems == draw_problems(run, 3, 0)
    assert list(sampled.texts) == [(restate(str(problem.prompt)),) for problem in sampled.problems]
    generation = sampled.generation
    for p, problem in enumerate(sampled.problems):
        response = generation.tokens[p, 0][generation.mask[p, 0]].tolist()
        assert response == embedded.tokenizer(f"{problem.data['solution']}.")["input_ids"]
        assert response[-1] == embedded.tokenizer.eos_token_id
        assert generation.tokens[p, 0][~generation.mask[p, 0]].eq(0).all()
    assert generation.logps.isnan().all()
    assert generation.entropy.isnan().all()
    assert not generation.truncated.any()
    assert sampled.labels is not None
    assert sampled.labels.tolist() == [[1.0]] * 4
    assert run.sampled_tokens == 0


@pytest.mark.parametrize("task", ["chain_sums", "islanders", "stack_programs"])
def test_the_solutions_of_the_embedded_tasks_pass_their_verifiers(task: str) -> None:
    made = TASKS[task]()
    for index in range(30):
        problem = made.problem("train", 0, index)
        assert made.rewards[0](problem, problem.data["solution"]).correct


def test_stack_programs_too_long_for_names_have_no_solution() -> None:
    made = TASKS["stack_programs"](min_operations=23, max_operations=23)
    assert "solution" not in made.problem("train", 0, 0).data
    assert "solution" in TASKS["stack_programs"](min_operations=22, max_operations=22).problem("train", 0, 0).data


def test_question_tables_give_the_solutions_that_they_have(tmp_path: Path) -> None:
    tables: dict[str, dict[str, Any]] = {
        "gsm8k": {"answer": "Two and %d.\n#### 4"},
        "plain": {"answer": 4, "solution": "Two and %d, \\boxed{4}."},
        "without": {"answer": 4},
    }
    solutions = {}
    for name, row in tables.items():
        rows = [{"question": f"{n}?"} | {k: v % n if "%" in str(v) else v for k, v in row.items()} for n in range(60)]
        for template in ("plain", "r1_zero"):
            made = files(path=write(tmp_path / f"{name}.jsonl", rows), template=template)
            problem = made.problem("train", 0, 0)
            solution = problem.data.get("solution")
            if solution is not None:
                assert made.rewards[0](problem, solution).correct
            solutions[name, template] = solution and solution.replace(problem.data["question"].strip("?"), "N")
    assert solutions["gsm8k", "plain"] == "Two and N.\n\\boxed{4}"
    assert solutions["plain", "plain"] == "Two and N, \\boxed{4}."
    assert solutions["plain", "r1_zero"] == " <think> Two and N, \\boxed{4}. </think> <answer> 4 </answer>"
    assert solutions["without", "plain"] is None


@given(st.integers(1, 9), st.integers(0, 3))
def test_every_row_is_met_once_a_pass_in_an_order_of_the_seed_alone(count: int, seed: int) -> None:
    from core.environments.datasets.stored import row_indices

    def context(step: int, round: int) -> RolloutContext:
        nothing: Any = None
        return RolloutContext(nothing, seed, nothing, 4, 8, step, round, nothing)

    met = [place for step in range(1, 2 * count + 1) for place in row_indices(context(step, 0), count)]
    for epoch in range(8):
        assert sorted(met[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert len({tuple(met[e * count : (e + 1) * count]) for e in range(8)}) > 1 or count < 3
    # whatever was asked before, and of a further round too
    assert row_indices(context(2, 0), count) == met[4:8]
    assert sorted(row_indices(context(2, 1), 4)) == [0, 1, 2, 3]


def test_arms_of_a_seed_meet_the_same_prompts_and_seeds_do_not(embedded: Policy, tmp_path: Path) -> None:
    source = preference_pairs(path=write(tmp_path / "pairs.jsonl", PAIRS))
    drawn = {
        (variant, seed): [
            [
                (p.prompt, p.index)
                for p in source.sample(rollout_context(run_of(embedded, source, variant, seed), step, 0)).problems
            ]
            for step in (1, 2, 3)
        ]
        for variant, seed in (("grpo", 0), ("dapo", 0), ("grpo", 1))
    }
    assert drawn["grpo", 0] == drawn["dapo", 0] != drawn["grpo", 1]
    # the number of the row, whenever it is met
    assert {(row["prompt"], index) for index, row in enumerate(PAIRS)} == {x for step in drawn["grpo", 0] for x in step}


def test_the_first_few_solutions_only(embedded: Policy, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}+1=", "completion": f">{n + 1}"} for n in range(9)]
    for source in (worked_solutions(limit=3), worked_solutions(limit=3, path=write(tmp_path / "rows.jsonl", rows))):
        run = run_of(embedded, source, prompts=3)
        met = [{p.index for p in source.sample(rollout_context(run, step, 0)).problems} for step in range(1, 5)]
        assert met == [{0, 1, 2}] * 4


def test_the_gradient_is_that_of_transformers_own_loss(embedded: Policy, tmp_path: Path) -> None:
    """Labels of -100 on the prompt, row by row without padding; as one batch, and as micro-batches."""
    rows = [{"prompt": "1+" * n + "1=", "completion": ">" * (7 - n) + "1"} for n in range(1, 4)]
    source = worked_solutions(path=write(tmp_path / "rows.jsonl", rows))
    run = run_of(embedded, source, prompts=3)
    sampled = source.sample(rollout_context(run, 1, 0))

    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32, attn_implementation="eager")
    total, count = torch.zeros(()), int(sampled.generation.mask.sum())
    for row in rows:
        prompt, whole = (
            embedded.tokenizer(text)["input_ids"] for text in (row["prompt"], row["prompt"] + row["completion"] + ".")
        )
        ids = torch.tensor([whole])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        counted = int((labels != -100).sum())
        total = total + model(input_ids=ids, labels=labels).loss * counted / count
    total.backward()  # type: ignore[no-untyped-call]

    batch = roll_out(run, 1).batch
    assert batch is not None
    advantages, _ = compute_advantages(VARIANTS["sft"](), batch, None)
    for micro_tokens in (10_000, 8):
        embedded.model.zero_grad()
        loss = accumulate_gradients(
            embedded,
            VARIANTS["sft"](),
            batch,
            advantages,
            torch.Generator(),
            UpdateMetrics({}),
            temperature=1.0,
            micro_tokens=micro_tokens,
            backward=lambda loss: loss.backward(),  # type: ignore[no-untyped-call]
        )
        assert loss == pytest.approx(float(total.detach()), abs=1e-6)
        theirs = dict(model.named_parameters())
        for name, parameter in embedded.model.named_parameters():
            assert parameter.grad is not None
            grad = theirs[name].grad
            assert grad is not None
            assert grad.abs().max() > 0
            assert torch.allclose(parameter.grad, grad, rtol=0, atol=1e-6), name
    embedded.model.zero_grad(set_to_none=True)


def test_pairs_are_trained_by_their_labels_and_judged_by_the_verifier(embedded: Policy, tmp_path: Path) -> None:
    # in the second pair the rejected response is the right one
    swapped = [PAIRS[0], PAIRS[1] | {"chosen": ">9", "rejected": ">2"}]
    source = preference_pairs(path=write(tmp_path / "pairs.jsonl", swapped))
    run = run_of(embedded, source, "grpo", prompts=2)
    rollout = roll_out(run, 1)
    batch = rollout.batch
    assert batch is not None
    by_row = dict(zip(batch.prompt_ids.tolist(), range(2), strict=True))
    assert batch.rewards.tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert batch.correct is not None
    assert batch.correct[by_row[0]].tolist() == [True, False]
    assert batch.correct[by_row[1]].tolist() == [False, True]
    advantages, _ = compute_advantages(VARIANTS["grpo"](), batch, None)
    # mean 1/2, std with ddof 1 is sqrt(1/2)
    assert advantages[..., 0].tolist() == [pytest.approx([0.5**0.5, -(0.5**0.5)], abs=1e-5)] * 2
    record = step_record(1, rollout, batch, UpdateMetrics({}))
    assert (record["accuracy"], record["reward"], record["entropy"]) == (0.5, 0.5, None)
    assert record["reward_parts"] == {"final_digit": 0.5}
    assert record["length_correct"] == record["length_incorrect"] == 3
    assert run.sampled_tokens == 0


def test_pairs_without_answers_have_no_accuracy_and_are_trained_all_the_same(embedded: Policy, tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "answer"} for row in PAIRS]
    source = preference_pairs(path=write(tmp_path / "pairs.jsonl", rows))
    for variant in ("grpo", "dapo"):  # dapo's filter reads the verdict: here the label
        rollout = roll_out(run_of(embedded, source, variant), 1)
        assert rollout.batch is not None
        assert rollout.batch.groups == 4
        record = step_record(1, rollout, rollout.batch, UpdateMetrics({}))
        assert record["reward"] == 0.5
        unknown = ("accuracy", "accuracy_lenient", "length_correct", "length_incorrect")
        assert [record[name] for name in unknown] == [None] * 4
        assert record["reward_parts"] == {"final_digit": None}
        json.dumps(record, allow_nan=False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "1+1=", "chosen": ">2", "rejcted": ">3"}, "no field 'rejected': did you mean rejcted"),
        ({"prompt": "1+1=", "chosen": ">2", "rejected": " "}, "field 'rejected' is ' ', neither text nor a single"),
        ({"prompt": ["1+1="], "chosen": ">2", "rejected": ">3"}, "field 'prompt' is .* nor a list of chat messages"),
        ({"prompt": "1+1=", "chosen": ">2", "rejected": ">2", "answer": "2"}, "chosen and rejected are the same"),
        ({"prompt": "1+1=", "chosen": ">2", "rejected": ">3"}, "no field 'answer', but .*line 1 has one"),
        ({"prompt": "1+1=", "chosen": ">2", "rejected": ">3", "answer": [2]}, "field 'answer' is .2., neither"),
    ],
)
def test_mistakes_in_a_row_are_named_with_file_and_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "pairs.jsonl", [PAIRS[0], row])
    with pytest.raises(GrpoLabError, match=rf"pairs.jsonl, line 2: {message}"):
        preference_pairs(path=path)


def test_mistakes_beyond_a_row(tmp_path: Path, embedded: Policy) -> None:
    with pytest.raises(GrpoLabError, match=r"no file .*pair.jsonl"):
        preference_pairs(path=str(tmp_path / "pair.jsonl"))
    with pytest.raises(GrpoLabError, match="has no rows"):
        preference_pairs(path=write(tmp_path / "empty.jsonl", []))
    with pytest.raises(GrpoLabError, match="limit = 0"):
        worked_solutions(limit=0)
    # a response that cannot be sampled, wherever in the file it stands, before the first step
    rows = [{"prompt": f"{n}+1=", "completion": ">2"} for n in range(50)]
    for wrong, message in (
        ({"completion": "1+1=2;" * 9 + ">2"}, r"line 50 has a response of 57 tokens.*max_tokens = 40.*1 of 50"),
        ({"completion": ">2.>2"}, r"line 50 has a response with the end-of-sequence token in the middle, '>2.>2'"),
        ({"prompt": "1+" * 130 + "1="}, r"line 50 has a prompt of 262 tokens.*context of 256"),
    ):
        source = worked_solutions(path=write(tmp_path / "rows.jsonl", [*rows[:-1], rows[-1] | wrong]))
        with pytest.raises(GrpoLabError, match=message):
            source.sample(rollout_context(run_of(embedded, source), 1, 0))


def test_what_no_data_set_has_is_refused_before_the_run(tmp_path: Path, embedded: Policy) -> None:
    solutions = worked_solutions()
    assert "a new one every time" in run_of(embedded, solutions).recipe.preflight()["source"]
    with config(text=SETTING + "train.variant = @grpo()\ntrain.correction = @token_truncated\n"):
        recipe: Recipe = SETTINGS["train"]()
    with pytest.raises(GrpoLabError, match="needs behaviour_logps"):
        replace(recipe, source=solutions).preflight()
    bare = files(path=write(tmp_path / "bare.jsonl", [{"question": f"{n}?", "answer": n} for n in range(50)]))
    with pytest.raises(GrpoLabError, match=r"no solution with training problem 0: bind worked_solutions.path"):
        replace(recipe, variant=VARIANTS["sft"](), source=solutions, task=bare).preflight()
    rows = [{key: value for key, value in row.items() if key != "answer"} for row in PAIRS]
    pairs = preference_pairs(path=write(tmp_path / "pairs.jsonl", rows))
    assert "5 prompts, 32 passes in 40 steps" in run_of(embedded, pairs).recipe.preflight()["source"]
    with pytest.raises(GrpoLabError, match=r"'remax' needs the rewards of greedy responses.*add a field 'answer'"):
        run_of(embedded, pairs, "remax").recipe.preflight()
    answered = preference_pairs(path=write(tmp_path / "pairs.jsonl", PAIRS))
    recipe = replace(run_of(embedded, answered, "grpo").recipe, rewards=TASKS["islanders"]().rewards)
    with pytest.raises(GrpoLabError, match=r"line 1: .*by the field 'answer' alone.*islanders.*remove the field"):
        recipe.preflight()


def test_chat_messages_are_taken_as_prompts_and_as_responses(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "1+1="}]
    row = {"prompt": prompt, "completion": [{"role": "assistant", "content": ">2"}]}
    (pair,) = worked_solutions(path=write(tmp_path / "chat.jsonl", [row])).rows
    assert pair.problem.prompt == prompt
    assert pair.responses == (">2",)


SYSTEM = {"role": "system", "content": "1"}
ASKS = {"role": "user", "content": "2+2="}
REPLIES = {"role": "assistant", "content": ">4"}
AGAIN = {"role": "user", "content": "4+2="}
RIGHT, WRONG = {"role": "assistant", "content": ">6"}, {"role": "assistant", "content": ">7"}
TALK = [SYSTEM, ASKS, REPLIES, AGAIN]
SIGNS = (
    "{% for m in messages %}{{ {'system': '+', 'user': '='}[m.role] if m.role != 'assistant' else '' }}{{ m.content }};"
    "{% endfor %}"
)
"""A template in the letters of the embedded tokenizer."""
DEAF = "{% for m in messages if m.role != 'developer' %}={{ m.content }};{% endfor %}"
STRICT = SIGNS + "{% if messages[0].role == 'developer' %}{{ raise_exception('who?') }}{% endif %}"


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_whole_conversations_by_hand(kind: str, tmp_path: Path) -> None:
    """Solutions as messages, or as prompt and completion: the same tokens, and the last message alone is learnt."""
    policy = load_policy(PolicySettings("embedded", chat_template=SIGNS))
    letters = policy.tokenizer.get_vocab()
    rows: list[dict[str, Any]] = [{"messages": [*TALK, RIGHT]}, {"prompt": TALK, "completion": [RIGHT]}]
    for row in rows:
        path = tmp_path / f"talks.{kind}"
        if kind == "jsonl":
            write(path, [row])
        else:
            parquet.write_table(pyarrow.Table.from_pylist([row]), path)
        source = worked_solutions(path=str(path))
        sampled = source.sample(rollout_context(run_of(policy, source, prompts=1), 1, 0))
        assert sampled.prompts[0].tolist() == [letters[letter] for letter in "+1;=2+2=;>4;=4+2=;"]
        assert sampled.generation.tokens[0, 0].tolist() == [letters[letter] for letter in ">6."]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": TALK, "chosen": [RIGHT], "rejected": [WRONG]},
        {"chosen": [*TALK, RIGHT], "rejected": [*TALK, WRONG]},
        {"prompt": TALK, "chosen": [*TALK, RIGHT], "rejected": [*TALK, WRONG]},
        {"prompt": TALK[:2], "chosen": [REPLIES, AGAIN, RIGHT], "rejected": [REPLIES, AGAIN, WRONG]},
        {"prompt": [SYSTEM], "chosen": [*TALK[1:], RIGHT], "rejected": [*TALK[1:], WRONG]},
        {"prompt": "2+2=", "chosen": [*TALK, RIGHT], "rejected": [*TALK, WRONG]},
    ],
    ids=["explicit", "implicit", "repeated", "continued", "system", "text"],
)
def test_pairs_of_conversations_share_what_comes_before(row: dict[str, Any], tmp_path: Path) -> None:
    source = preference_pairs(path=write(tmp_path / "pairs.jsonl", [row]))
    assert [problem.prompt for problem in source.problems] == [TALK]
    assert source.rows[0].responses == (">6", ">7")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": TALK}, r"field 'messages' ends with a message of the role 'user': .* must be the assistant's"),
        ({"prompt": TALK, "completion": [AGAIN]}, r"field 'completion' ends with a message of the role 'user'"),
        ({"messages": [RIGHT]}, r"field 'messages' has no message before the assistant's"),
        ({"messages": []}, r"field 'messages' is \[\], not a list of chat messages: there is none"),
        ({"messages": [ASKS, {"role": "assistant"}]}, r"not a list .*: message 2 \(assistant\) has the content None"),
        ({"prompt": [ASKS], "completion": [REPLIES, AGAIN, RIGHT]}, r"field 'completion' has 3 messages, of which one"),
        ({"messages": [ASKS, {**REPLIES, "thinking": "4"}]}, r"the response in column 'messages' has thinking beside"),
        (
            {"messages": [ASKS, {"role": "assistant", "tool_calls": [{"function": {"name": "add"}}]}]},
            r"the response in column 'messages' has tool_calls .* not be learnt: .* or leave the row out",
        ),
        (
            {"messages": [ASKS, RIGHT], "tools": [{"type": "function"}]},
            r"column 'tools' is \[{'type'.*: write",
        ),
        ({"prompt": [{"role": "user", "content": 4}], "completion": "4"}, r"chat messages: message 1 \(user\) has the"),
    ],
)
def test_conversations_that_teach_no_reply_are_refused(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(GrpoLabError, match=rf"talks.jsonl, line 2: .*{message}"):
        worked_solutions(path=write(tmp_path / "talks.jsonl", [{"messages": [ASKS, RIGHT]}, row]))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("", r"line 1: .*no chat template"),
        (STRICT, r"line 3: the chat template of the model refuses these messages \(developer, user\): who\?"),
        (DEAF, r"line 3: the chat template of the model leaves out message 1 of 2, of the role 'developer'"),
        (SIGNS, None),
    ],
    ids=["none", "strict", "deaf", "knowing"],
)
def test_what_the_template_does_not_know_is_named_with_its_line(
    template: str, message: str | None, tmp_path: Path
) -> None:
    rows = [{"messages": [ASKS, RIGHT]}] * 2 + [{"messages": [{"role": "developer", "content": "1"}, ASKS, RIGHT]}]
    source = worked_solutions(path=write(tmp_path / "talks.jsonl", rows))
    policy = load_policy(PolicySettings("embedded", chat_template=template))
    context = rollout_context(run_of(policy, source, prompts=1), 1, 0)
    with pytest.raises(GrpoLabError, match=rf"talks.jsonl, {message}") if message else nullcontext():
        source.sample(context)


def test_memory_is_forecast_without_sampling_for_training(tmp_path: Path, embedded: Policy) -> None:
    with config(text=SETTING + "train.variant = @grpo()\ntrain.prompts = 512\n"):
        sampling: Recipe = SETTINGS["train"]()
    stored = forecast(replace(sampling, source=worked_solutions(), group_size=1))
    assert sum(stored.parts["sample"].values()) < sum(forecast(sampling).parts["sample"].values()) / 4
    long = [{"prompt": "1+" * 60 + "1=", "completion": ">2"}] * 2
    source = worked_solutions(path=write(tmp_path / "long.jsonl", long))
    assert forecast(replace(sampling, source=source, group_size=1)).prompts.longest == 122
