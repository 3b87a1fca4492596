"""Types and limits of settings: what a value must be, in words; every registered parameter refuses what it is not."""

import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from torch import Tensor

import core.parts.registry as registry
from core import ADVANTAGES, Batch, GrpoLabError, Part, advantage, reward, setting, variant
from core.parts.contracts import generator
from core.parts.registry import REGISTRIES, config
from core.parts.settings import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Range,
    SettingError,
    annotations,
    fault,
    form_of,
    shown,
)
from core.parts.variant import Variant
from estimators.advantages.group import group_mean
from estimators.aggregators import token_mean
from estimators.objectives.token import clip


@pytest.mark.parametrize(
    ("limit", "words", "inside", "outside"),
    [
        (Range(), "", [-1e30, 0, 7], []),
        (COUNT, "from 1 up", [1, 10**7], [0, -1, 10**7 + 1]),
        (NOT_NEGATIVE, "from 0 up", [0, 1e-320, 1e30], [-1e-320, -1]),
        (POSITIVE, "above 0", [5e-324, 1], [0, -1]),
        (SHARE, "from 0 to 1", [0, 1], [-0.1, 1.1]),
        (Range(0, 1, "high"), "from 0 to below 1", [0, 0.999], [1]),
        (Range(0, 1, "low"), "above 0 and up to 1", [0.001, 1], [0]),
        (Range(0, 0.5, "both"), "above 0 and below 0.5", [0.25], [0, 0.5]),
        (Range(high=3), "up to 3", [-5, 3], [3.1]),
        (Range(1, 1024), "from 1 to 1,024", [1, 1024], [0, 1025]),
    ],
)
def test_a_range_by_hand(limit: Range, words: str, inside: list[float], outside: list[float]) -> None:
    assert str(limit) == words
    assert all(value in limit for value in inside)
    assert not any(value in limit for value in outside)


@pytest.mark.parametrize(
    ("annotation", "limit", "words", "fitting", "others"),
    [
        (int, COUNT, "a whole number from 1 up", [1, np.int64(3)], [True, 1.0, 2.5, "1", None, 0, 10**40, b"1"]),
        (int, None, "a whole number", [-(2**63) + 1, 2**63 - 1], [2**63, -(2**63)]),
        (
            float,
            None,
            "a number",
            [1, 1.5, np.float32(2), -1e30],
            [math.nan, math.inf, -math.inf, True, "1", None, 10**400, 1e39, 1j],
        ),
        (float, SHARE, "a number from 0 to 1", [0, 1, 0.5], [-0.1, 1.5]),
        (float, (0, 1), "a number from 0 to 1", [0, 1], [2]),
        (bool, None, "True or False", [True, False], [0, 1, "no", None]),
        (str, None, "text in quotes", ["", "x"], [b"x", 1, None, ["x"]]),
        (int | None, COUNT, "a whole number from 1 up or None", [1, None], [0, "x"]),
        (Literal["a", "b"], None, "'a' or 'b'", ["a", "b"], ["c", None, 1]),
        (Literal["a", "b", "c"] | None, None, "'a', 'b', 'c' or None", ["c", None], ["d"]),
        (Literal[1, 2], None, "1 or 2", [1, 2], [True, 1.0]),
        (
            tuple[float, float],
            Range(0, 1, "high"),
            "two numbers from 0 to below 1",
            [(0, 0.9), [0.1, 0.2]],
            [(0,), (0, 1), (0, 0.5, 0.5), "xy", 0.5],
        ),
        (Sequence[float], POSITIVE, "a list of numbers above 0", [[], (1, 2.5)], [[0], [True], "12", {1: 2}, b"x", 1]),
        (
            Sequence[tuple[int, float]],
            None,
            "a list of tuples (a whole number, a number)",
            [[(8, 0.1)]],
            [(8, 0.1), [(8.0, 0.1)], [(8, math.inf)]],
        ),
        (tuple[str, ...], None, "a list of texts in quotes", [("a", "b")], ["ab", ("a", 1)]),
        (
            Mapping[str, str | Sequence[str]],
            None,
            "a dictionary of texts in quotes to texts in quotes or lists of texts in quotes",
            [{}, {"a": "b", "c": ["d"]}],
            [{1: "b"}, {"a": 1}, [("a", "b")], "a"],
        ),
        (
            int | Sequence[int],
            NOT_NEGATIVE,
            "a whole number from 0 up or a list of whole numbers from 0 up",
            [0, 5, [0, 1], ()],
            [-1, [-1], [1.0], "5"],
        ),
        (Annotated[float, "metres"], SHARE, "a number from 0 to 1", [0.5], [2]),
        (Annotated[Part, "aggregator"], None, "a registered aggregator, @name", [token_mean], [clip, "clip", None]),
        (
            Sequence[Annotated[Part, "objective"]],
            None,
            "a list of registered objectives, @name",
            [[clip]],
            [[token_mean], clip],
        ),
        (Annotated[Any, "source"], None, "a source, with brackets: @name()", [object()], [clip, "x", 3, [], {}]),
    ],
)
def test_an_annotation_by_hand(
    annotation: Any, limit: Any, words: str, fitting: list[object], others: list[object]
) -> None:
    form = form_of(annotation, limit)
    assert form.words == words
    for value in fitting:
        assert fault(value, form) is None, value
    for value in others:
        assert (fault(value, form) or "").startswith(words), value


@pytest.mark.parametrize("annotation", [Any, object, "float", bytes, int | Any, dict, list, Tensor, 3, ..., Sequence])
def test_an_annotation_that_is_none_asks_nothing_of_plain_values(annotation: Any) -> None:
    for value in (1, "x", None) if annotation not in (dict, list, Sequence) else ({}, [], {"a": [1]}):
        form = form_of(annotation)
        assert fault(value, form) is None or annotation in (dict, list, Sequence)


def test_a_value_too_large_is_answered_with_the_largest_allowed() -> None:
    assert fault(10**40, form_of(int, COUNT)) == "a whole number from 1 up, at most 10,000,000"
    assert fault(2**63, form_of(int | None, NOT_NEGATIVE)) == (
        "a whole number from 0 up or None, at most 9,223,372,036,854,775,807"
    )
    assert fault(1e300, form_of(float)) == "a number, at most 3.4e+38"


def test_a_value_is_shown_short_and_without_addresses() -> None:
    assert shown("x") == "'x'"
    assert shown([clip, (token_mean,), {"a": clip}]) == "[@clip, (@token_mean,), {'a': @clip}]"
    assert shown(object()) == "a object"
    assert shown(1 << 20_000) == "a int"  # of more digits than Python writes
    assert len(shown("x" * 1000)) <= 120
    loop: list[Any] = []
    loop.append(loop)
    assert shown(loop) == "a list"
    assert fault(loop, form_of(Sequence[Sequence[int]])) == "a list of lists of whole numbers"
    error = SettingError("train.steps", "x", "a whole number", "study.gin, line 3")
    assert str(error) == "train.steps = 'x': must be a whole number (study.gin, line 3)"


# parts of one's own


def test_a_package_gives_its_parts_limits_of_which_their_own_win(monkeypatch: pytest.MonkeyPatch) -> None:
    def own_shaped_of_a_test(batch: Batch, *, share: float = 0.5, cap: float = 2.0, free: float = 0.0) -> Tensor:
        """The reward, scaled."""
        return batch.rewards * share

    monkeypatch.setattr(registry, "_LIMITS_OF_PACKAGES", {})
    registry.default_limits("ours_of_a_test", {"share": SHARE, "cap": COUNT, "of_another_part": SHARE})
    own_shaped_of_a_test.__module__ = "ours_of_a_test.advantages"
    part = advantage(limits={"cap": POSITIVE})(own_shaped_of_a_test)
    assert [part.form(name).words for name in part.defaults] == ["a number from 0 to 1", "a number above 0", "a number"]
    with pytest.raises(GrpoLabError, match=r"share = 2: must be a number from 0 to 1$"):
        part.using(share=2)
    assert part.using(cap=0.5)
    with pytest.raises(GrpoLabError, match=r"'own_shaped_of_a_test' was registered before the default limits of 'ours"):
        registry.default_limits("ours_of_a_test", {})


def test_the_limits_of_the_package_of_estimators_reach_all_of_them() -> None:
    """Each by a name that stands in the package's list alone, in a part whose decorator says nothing of limits."""
    refused = {"group_mean_std.eps": -1, "clip.eps_low": -1, "soft_overlong.buffer": 0, "k3_bounded.max_value": 0}
    for key, value in refused.items():
        name, parameter = key.split(".")
        part = next(registry[name] for registry in REGISTRIES.values() if name in registry)
        with pytest.raises(SettingError, match=rf"^{key} = {value}: must be "):
            part.using(**{parameter: value})


def test_parts_of_ones_own_are_checked_by_their_annotations_and_an_odd_one_is_no_error() -> None:
    @advantage(limits={"share": SHARE, "of_another_part": SHARE})
    def own_advantage_of_a_test(  # type: ignore[no-untyped-def]
        batch: Batch,
        *,
        share: float = 0.5,
        times: "int" = 1,
        odd: "Nowhere" = 3,  # type: ignore[name-defined]  # noqa: F821
        free=2,
    ) -> Tensor:
        """The reward, scaled."""
        return batch.rewards * share * times

    part = ADVANTAGES["own_advantage_of_a_test"]
    assert set(annotations(part.function)) >= {"share", "times"}
    for line, message in {
        "share = 2": "own_advantage_of_a_test.share = 2: must be a number from 0 to 1 (command line)",
        "times = 1.0": "own_advantage_of_a_test.times = 1.0: must be a whole number (command line)",
        "times = True": "own_advantage_of_a_test.times = True: must be a whole number (command line)",
    }.items():
        with pytest.raises(GrpoLabError) as refused, config(bindings=[f"own_advantage_of_a_test.{line}"]):
            part.resolved()
        assert str(refused.value) == message
    with config(bindings=["own_advantage_of_a_test.odd = 'x'", "own_advantage_of_a_test.free = [1]"]):
        assert part.resolved().set_values["free"] == [1]
    with pytest.raises(GrpoLabError, match=r"share = 3: must be a number from 0 to 1$"):
        part(Batch.of([[1.0, 2.0]]), share=3)
    with pytest.raises(GrpoLabError, match=r"times = 'x': must be a whole number$"):
        part.using(times="x")


def test_what_a_variant_hands_on_is_named_by_the_variants_own_name() -> None:
    @variant
    def own_variant_of_a_test(*, wide: float = 0.2, eps_high: float = 0.2) -> Variant:
        """Clips wider."""
        objective = clip.using(eps_low=wide, eps_high=eps_high)
        return Variant(advantage=group_mean, objective=objective, aggregator=token_mean, kl_coef=-1.5)

    for line, message in {
        "eps_high = -1": r"^own_variant_of_a_test\.eps_high = -1: must be a number from 0 up \(command line\)$",
        "wide = -1": r"^own_variant_of_a_test\.wide = -1: must be a number from 0 up \(command line\)$",
        "wide = 0": r"^variant 'own_variant_of_a_test': Variant\.kl_coef = -1\.5: must be a number from 0 up$",
    }.items():
        with pytest.raises(GrpoLabError, match=message), config(bindings=[f"own_variant_of_a_test.{line}"]):
            registry.VARIANTS["own_variant_of_a_test"]()


def test_every_way_a_value_arrives_is_checked() -> None:
    """A binding, a macro, a macro in a list, a call; and the place of the macro is named."""

    @setting(limits={"sizes": COUNT})
    def own_setting_of_a_test(*, sizes: Sequence[int] = (1,)) -> tuple[int, ...]:
        """Sizes."""
        return tuple(sizes)

    part = registry.SETTINGS["own_setting_of_a_test"]
    message = r"own_setting_of_a_test\.sizes = .*: must be a list of whole numbers from 1 up"
    for lines in (["sizes = [0]"], ["sizes = %S", "S = [2, 'x']"], ["sizes = [1, %S]", "S = 1.5"]):
        bindings = [line if line.startswith("S") else f"own_setting_of_a_test.{line}" for line in lines]
        place = r" \(command line, by %S: command line\)$" if len(lines) > 1 else r" \(command line\)$"
        with pytest.raises(GrpoLabError, match=message + place), config(bindings=bindings):
            part()
    with pytest.raises(GrpoLabError, match=message + "$"):
        part(sizes=[0])
    with config(bindings=["own_setting_of_a_test.sizes = [%S, 2]", "S = 3"]):
        assert part() == (3, 2)


def test_what_is_made_by_another_kind_of_part_is_refused() -> None:
    @generator
    def own_generator_of_a_test() -> Any:
        """Not one, for it generates nothing."""
        return 3

    @reward
    def own_reward_of_a_test(problem: Any, response: str) -> float:
        """Nothing."""
        return 0.0

    base = ["train.variant = @grpo()", "train.task = @chain_sums()"]
    for line, message in {
        "train.generator = @own_generator_of_a_test()": "train.generator = 3: must be a generator, with brackets",
        "train.generator = @own_generator_of_a_test": "must be a generator, with brackets: @own_generator_of_a_test()",
        "train.generator = None": "train.generator = None: must be a generator, with brackets: @native()",
        "train.source = @grpo()": "train.source = a Variant: must be a source, with brackets",
        "train.rewards = [@own_generator_of_a_test]": "must be a list of registered rewards, one of @code_tests, ",
    }.items():
        bindings = [*base, "train.generator = @native()", line]
        with pytest.raises(GrpoLabError, match=re.escape(message)), config(bindings=bindings):
            registry.SETTINGS["train"]()


# every parameter that there is


WRONG = (
    "'x'",
    "''",
    "b'x'",
    "None",
    "1e999",
    "-1e999",
    "-1",
    "2.5",
    "1e40",
    "[]",
    "()",
    "{}",
    "True",
    "['x']",
    "[[1]]",
    "{'a': 1}",
    "@nonuniform",
    "@grpo()",
    "1" + "0" * 40,
    "[1e999]",
)
"""Values of every type; few parameters take any one of them."""
BASE = {
    "setting": "train.variant = @grpo()\ntrain.task = @chain_sums()\ntrain.generator = @native()\n",
    "tune": "tune.rates = [1e-3, 1e-4]\n",
    "claim": "claim.question = 'q'\nclaim.source = 's'\nclaim.predictions = ['a > b on test/accuracy by 0.1']\n",
    "compare": "compare.arms = {'a': 'grpo.kl_coef = 0.1', 'b': 'grpo.kl_coef = 0.2'}\n",
    "ablate": "ablate.axes = {'grpo.kl_coef': [0.1, 0.2]}\n",
}
PARAMETERS = [
    (part, name)
    for registry in REGISTRIES.values()
    for part in registry.values()
    for name in part.defaults
    if part.function.__module__.split(".")[0] in ("core", "estimators", "variants", "experiments")
]


def refusal(part: Part, name: str, value: str) -> str | None:
    """The error message of this binding where the part is used; None where it is accepted."""
    try:
        with config(text=BASE["setting"] + BASE.get(part.name, ""), bindings=[f"{part.name}.{name} = {value}"]):
            if part.kind == "setting" and part.name != "train":
                part()
            registry.SETTINGS["train"]() if part.name in ("train", "adamw", "policy") else part.resolved()
    except GrpoLabError as error:
        return str(error)
    return None


def test_values_of_a_wrong_type_are_refused_by_name_wherever_they_are_bound() -> None:
    """Of each parameter five of the values, drawn by a seed: an error names the key, and nothing else is raised."""
    draw = random.Random(20261130)
    cases = [(part, name, value) for part, name in PARAMETERS for value in draw.sample(WRONG, 5)]
    messages = {(f"{part.name}.{name}", value): refusal(part, name, value) for part, name, value in cases}
    refused = {of: message for of, message in messages.items() if message is not None}
    assert len(PARAMETERS) > 400
    assert len(refused) > 4 * len(PARAMETERS)
    assert {of: message for of, message in refused.items() if of[0] not in message} == {}
    assert [message for message in refused.values() if " at 0x" in message or "cannot be built" in message] == []


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_default_is_what_its_parameter_must_be(kind: str) -> None:
    for part in REGISTRIES[kind].values():
        for name, default in part.defaults.items():
            if default is not registry.REQUIRED and not (default is None and kind == "setting"):
                assert fault(default, part.form(name)) is None, f"{part.name}.{name} = {default!r}"


def test_a_value_that_holds_the_setting_itself_is_shown_without_asking_it() -> None:
    """Else each refusal would ask for the value again, to the end of the stack."""
    calls = []
    plain = Part.__repr__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Part, "__repr__", lambda part: calls.append(part) or plain(part))  # type: ignore[func-returns-value]
        message = refusal(registry.AGGREGATORS["seq_mean_token_mean"], "count_empty", "@grpo()")
    assert message == "seq_mean_token_mean.count_empty = a Variant: must be True or False (command line)"
    assert not calls
