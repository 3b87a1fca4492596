"""The loop on the pretend device: every tensor in its place, and the host waits a stated number of times."""

from typing import Final

import pytest

from core.model.truncation import Truncation
from tests.pretend.process import FailedThereError, on_pretend
from tests.pretend.runs import (
    Decoded,
    Decoding,
    Evaluated,
    Plant,
    Trained,
    decoded,
    evaluated,
    straight_and_resumed,
    trained,
)

# a loss that no row is left out of, whatever the rewards
UPDATING: Final = (
    "train.variant = @grpo()",
    "grpo.kl_coef = 0.04",
    "train.minibatches = 2",
    "train.steps = 3",
    "evaluation.every = 100",
)
WAITS_A_STEP: Final = 14
"""Of such a step but for decoding and evaluation: the number of rows, of tokens and of layers does not count."""
WAITS_AN_EVALUATION: Final = 12
"""Beside one a decoded token: of the sampled and the greedy answers what is longest, and the five parts of both."""
STEADY_AS_USED: Final = {
    ("core/generation/native.py in Native._answer", "aten::index_copy.out"): "every place is written once",
    ("core/model/packing.py in scatter_rows", "aten::index_copy.out"): "every place is written once",
    ("core/model/logps.py in _TokenLogps.backward", "aten::scatter_add.out"): "one token a row",
}
"""Operators on torch's list of unsteady ones that give the same bits here all the same, and why."""


def check_waits(found: Trained) -> None:
    """The second step of a run that updates waits as often as is stated, and no oftener."""
    waits = found.waits[1]
    assert sum(waits.values()) <= WAITS_A_STEP, "\n".join(f"{n} {place}" for place, n in sorted(waits.items()))


def check_steady(found: Trained) -> None:
    """No kernel may give other bits the next time."""
    assert found.unsteady <= STEADY_AS_USED.keys()


def check_decoding(few: Decoded, many: Decoded) -> None:
    """A further token waits for the device once, whether or not responses are retired after it."""
    waits = {place: n - few.waits.get(place, 0) for place, n in many.waits.items()}
    assert sum(waits.values()) <= many.steps - few.steps, waits


def test_a_step_waits_for_the_device_as_often_whatever_its_rows_and_tokens() -> None:
    small = on_pretend(trained, *UPDATING, stop_after=2)
    large = on_pretend(
        trained, *UPDATING, "train.prompts = 3", "train.group_size = 6", "train.max_tokens = 20", stop_after=2
    )
    assert all(found.lines[1]["grad_norm"] for found in (small, large))  # it did update
    assert small.waits[1] == large.waits[1]
    assert small.launches > 1000  # it was on the device
    for found in (small, large):
        check_waits(found)
        check_steady(found)


def never(*_: object) -> bool:
    return False


TABLE: Final = {
    "core.generation.noise.SMALL_VOCABULARY": 0,
    "core.generation.native.SMALL_VOCABULARY": 0,
    "core.generation.noise.TABLE_SIZE": 1 << 12,
}
WAYS: Final = {
    "a row a response, noise from a table": Decoding(TABLE),
    "prompts held once, transformers' pass": Decoding(
        {"core.model.caching.MANY_COLUMNS": 0, "core.model.policy.is_written_out": never}
    ),
    "cut down": Decoding(request={"truncation": Truncation(top_p=0.8, top_k=5, min_p=0.01), "with_support": True}),
}


def test_decoding_waits_for_the_device_once_a_token() -> None:
    for few, many in on_pretend(decoded, WAYS, (2, 10)).values():
        assert (few.steps, many.steps) == (2, 10)
        assert many.ended > 8  # of 32: rows were retired on the way
        check_decoding(few, many)


EVALUATIONS: Final = {
    "one question": (),
    "more questions, samples and tokens": (
        "evaluation.questions = 5",
        "evaluation.samples = 4",
        "train.max_tokens = 20",
    ),
    "sampled and greedy answers apart": ("evaluation.questions = 3", "evaluation.temperature = 0.7"),
}


def check_evaluation(found: Evaluated) -> None:
    """A decoded token waits for the device once, and an evaluation as often again as is stated."""
    assert sum(found.waits.values()) <= found.steps + WAITS_AN_EVALUATION, found


def test_an_evaluation_waits_once_a_token_and_a_stated_number_of_times() -> None:
    """By a moving average of the weights, with the answers' surprise."""
    found = on_pretend(evaluated, EVALUATIONS, "evaluation.ema_lag = 0.2", "evaluation.surprise = True")
    one, more, apart = found.values()
    assert one.steps == 6
    assert more.steps > 10
    assert apart.steps > 6  # two batches
    for each in (one, more, apart):
        check_evaluation(each)


def test_a_run_gone_on_with_ends_with_the_same_bits() -> None:
    """A critic of its own, bfloat16 with masters, activations computed again, and an update of two epochs."""
    straight, resumed = on_pretend(
        straight_and_resumed,
        "train.variant = @ppo()",
        "policy.dtype = 'bfloat16'",
        "policy.gradient_checkpointing = True",
        "train.epochs = 2",
    )
    assert straight.hashes == resumed.hashes
    assert straight.hashes["final_weights"] != straight.hashes["initial_weights"]
    assert straight.lines[1]["value_loss"] is not None
    check_steady(straight)


def test_adapters_and_greedy_baselines_have_every_tensor_in_its_place() -> None:
    found = on_pretend(trained, "train.variant = @remax()", "policy.lora_rank = 4")
    assert len(found.lines) == 2
    check_steady(found)


# mistakes, each of them noticed


def test_a_planted_tensor_in_another_place_is_refused_at_its_line() -> None:
    plant = Plant("core.model.logps", "norms = torch.empty_like(logps)", "norms = torch.empty(len(tokens))")
    with pytest.raises(FailedThereError, match=r"core/model/logps.py(.|\n)*at least two devices, pretend:0 and cpu!"):
        on_pretend(trained, "train.variant = @grpo()", plant=plant)


def test_a_planted_wait_in_the_update_is_counted() -> None:
    plant = Plant(
        "core.loop.update",
        "        tensors = rows.at(micro)\n",
        "        tensors = rows.at(micro)\n        [float(p.detach().sum()) for p in policy.model.parameters()]\n",
    )
    with pytest.raises(AssertionError, match=r"core/loop/update.py:\d+ in accumulate_gradients"):
        check_waits(on_pretend(trained, *UPDATING, stop_after=2, plant=plant))


def test_a_planted_wait_in_decoding_is_counted() -> None:
    line = "self.positions.add_(1)"
    plant = Plant("core.model.caching", line, f"{line}.add_(0 * int(self.positions.max()))")
    ((few, many),) = on_pretend(decoded, {"planted": Decoding()}, (2, 10), plant=plant).values()
    with pytest.raises(AssertionError, match=r"core/model/caching.py:\d+ in Cache.advance"):
        check_decoding(few, many)


def test_a_planted_wait_in_the_evaluation_is_counted() -> None:
    line = "problems = [task.problem(split, settings.seed, i) for i in range(settings.questions)]"
    sizes = "[int(run.policy.tokens(problem).sum()) for problem in problems]"
    plant = Plant("core.loop.evaluation", line, f"{line}; {sizes}")
    with pytest.raises(AssertionError, match=r"core/loop/evaluation.py:\d+ in evaluate"):
        check_evaluation(on_pretend(evaluated, {"planted": EVALUATIONS["one question"]}, plant=plant)["planted"])


def test_a_planted_kernel_that_is_not_steady_is_named() -> None:
    plant = Plant(
        "core.model.logps",
        "norms[rows] = scores.logsumexp(-1)",
        "norms[rows] = torch.zeros_like(scores[:, 0]).scatter_add(0, tokens[rows] * 0, scores.logsumexp(-1))",
    )
    found = on_pretend(trained, "train.variant = @grpo()", stop_after=1, plant=plant)
    planted = ("core/model/logps.py in _TokenLogps.forward", "aten::scatter_add.out")
    assert found.unsteady - STEADY_AS_USED.keys() == {planted}
    with pytest.raises(AssertionError):
        check_steady(found)
