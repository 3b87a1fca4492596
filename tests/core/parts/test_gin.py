"""Gin: a binding always applies or is an error, and mistakes are named with file and line."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

import core
from core import VARIANTS, Batch, GrpoLabError
from core.parts import registry
from core.parts.bindings import bindings_used, refuse_unused
from core.parts.registry import bindings_in_force, config, config_text
from estimators.advantages.group import group_mean_std
from estimators.aggregators import token_mean
from estimators.objectives.token import clip


def test_without_a_config_a_call_is_a_plain_call() -> None:
    assert group_mean_std.settings()["eps"].value == 1e-6
    assert group_mean_std.settings()["eps"].source == "default"
    assert not bindings_in_force()


def test_a_binding_on_a_leaf_applies_wherever_the_leaf_is_used() -> None:
    batch = Batch.of([[0.0, 2.0]])
    with config(bindings=["group_mean_std.eps = 1.0", "group_mean_std.correction = 0"]):
        assert group_mean_std(batch).tolist() == [[-0.5, 0.5]]
        assert VARIANTS["grpo"]().advantage(batch).tolist() == [[-0.5, 0.5]]
        assert VARIANTS["grpo"]().resolved().advantage(batch).tolist() == [[-0.5, 0.5]]
        assert group_mean_std.settings()["eps"].source == "binding"
        assert ("advantages.group_mean_std", "eps") in bindings_used()
    assert group_mean_std(batch)[0, 1] == pytest.approx(0.5**0.5)


def test_a_resolved_part_no_longer_asks_gin() -> None:
    batch = Batch.of([[0.0, 2.0]])
    with config(bindings=["group_mean_std.eps = 1.0", "group_mean_std.correction = 0"]):
        fixed = group_mean_std.resolved()
    assert fixed(batch).tolist() == [[-0.5, 0.5]]
    assert fixed.describe() == {"baseline": "group mean", "std": "group, ddof 0, + 1"}


def test_what_is_set_wins_over_a_binding() -> None:
    with config(bindings=["clip.eps_high = 9.0", "clip.eps_low = 0.5"]):
        part = clip.using(eps_high=0.28)
        values = {name: (s.value, s.source) for name, s in part.settings().items()}
        assert values == {"eps_low": (0.5, "binding"), "eps_high": (0.28, "variant")}
        assert ("objectives.clip", "eps_low") in bindings_used()
        assert ("objectives.clip", "eps_high") not in bindings_used()


def test_what_is_given_in_the_call_wins_over_everything() -> None:
    batch = Batch.of([[0.0, 2.0]])
    with config(bindings=["group_mean_std.eps = 7.0", "group_mean_std.correction = 0"]):
        for part in (group_mean_std, group_mean_std.using(eps=9.0), group_mean_std.resolved()):
            assert part(batch, eps=1.0).tolist() == [[-0.5, 0.5]]


def test_references_and_macros() -> None:
    text = "WIDE = 0.5\ngrpo.aggregator = @token_mean\nclip.eps_high = %WIDE\ndapo.shaping = []\ndapo.filter = None\n"
    with config(text=text):
        variant = VARIANTS["grpo"]()
        assert variant.aggregator is token_mean
        assert variant.objective.settings()["eps_high"].value == 0.5
        assert VARIANTS["dapo"]().shaping == ()
        assert VARIANTS["dapo"]().filter is None
    with config(bindings=["dapo.shaping = [@soft_overlong]"]):
        assert VARIANTS["dapo"]().shaping == (core.SHAPINGS["soft_overlong"],)


def refuse(bindings: Sequence[str], name: str) -> None:
    """Build a variant under these bindings and refuse those that did nothing."""
    with config(bindings=bindings):
        built = VARIANTS[name]().resolved()
        refuse_unused(bindings_in_force(), bindings_used(), built.parts, [name])


@pytest.mark.parametrize(
    ("binding", "name", "message"),
    [
        (
            "clip.eps_high = 0.3",
            "dapo",
            r"'clip.eps_high' had no effect: the variant sets it itself; bind 'dapo.eps_high'",
        ),
        ("dapo.eps_high = 0.3", "grpo", "'dapo.eps_high' had no effect: 'dapo' is not used here, but grpo"),
        ("clip.eps_high = 0.3", "rloo", r"'clip' is not used here, but policy_gradient.*or remove the line"),
        (
            "soft_overlong.buffer = 0.1",
            "grpo",
            "'soft_overlong.buffer' had no effect: 'soft_overlong' is not used here",
        ),
        ("k3.eps = 1", "grpo", "doesn't have a parameter"),
    ],
)
def test_bindings_without_effect_are_refused_naming_the_right_key(binding: str, name: str, message: str) -> None:
    with pytest.raises(GrpoLabError, match=message):
        refuse([binding], name)


def test_bindings_with_effect_are_not_refused() -> None:
    refuse(["dapo.eps_high = 0.3", "soft_overlong.buffer = 0.1", "group_mean_std.eps = 0.1"], "dapo")
    refuse(["grpo.objective = @policy_gradient"], "grpo")
    with pytest.raises(GrpoLabError, match="'clip' is not used here, but policy_gradient"):
        refuse(["grpo.objective = @policy_gradient", "clip.eps_low = 0.1"], "grpo")


def test_scoped_bindings_do_not_go_unnoticed() -> None:
    """Nothing is called in a gin scope, so such a binding has no effect, even if the same one without scope has."""
    with pytest.raises(GrpoLabError, match=r"wide/.*clip.* scope"):
        refuse(["clip.eps_low = 0.1", "wide/clip.eps_low = 0.9"], "grpo")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("grop.kl_coef = 0.1", "did you mean grpo"),
        ("grpo.kl_coeff = 0.1", "did you mean kl_coef"),
        ("grpo.aggregator = @token_maen", "did you mean token_mean"),
        ("clip.eps_low = ", "Unable to parse value"),
        ("clip.eps_low 0.1", "expected ':' or '='"),
    ],
)
def test_mistakes_name_the_near_ones_with_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "mistake.gin"
    file.write_text(f"# a comment\ngrpo.kl_coef = 0.04\n{line}\n")
    with pytest.raises(GrpoLabError, match=message) as refused, config([file]):
        VARIANTS["grpo"]()
    assert re.search(r"mistake\.gin, line 3\)", str(refused.value))
    assert "bindings string" not in str(refused.value), "gin's own words for the place, which is named already"


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(GrpoLabError, match=r"config file not found: .*absent\.gin"), config([tmp_path / "absent.gin"]):
        pass
    (tmp_path / "main.gin").write_text("include 'absent.gin'\n")
    with pytest.raises(GrpoLabError, match=r"absent\.gin"), config([tmp_path / "main.gin"]):
        pass
    (tmp_path / "main.gin").write_text("import no_such_module_of_mine\n")
    with (
        pytest.raises(GrpoLabError, match="imports 'no_such_module_of_mine', which is not on the import path"),
        config([tmp_path / "main.gin"]),
    ):
        pass


def test_config_forgets_everything_afterwards() -> None:
    with config(bindings=["clip.eps_low = %WIDE", "WIDE = 3"]):
        clip.settings()
        assert bindings_used()
    assert not bindings_in_force()
    assert not bindings_used()
    assert clip.settings()["eps_low"].value == 0.2
    with pytest.raises(ZeroDivisionError), config(bindings=["clip.eps_low = 0.05"]):
        raise ZeroDivisionError
    assert not bindings_in_force()
    with pytest.raises(GrpoLabError), config(bindings=["clip.eps_low = 0.05", "nonsense"]):
        pass
    assert not bindings_in_force()


def test_config_forgets_search_paths(tmp_path: Path) -> None:
    """Two folders with files of the same names: each includes its own."""
    for name, value in (("one", 0.1), ("other", 0.3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "base.gin").write_text(f"clip.eps_low = {value}\n")
        (tmp_path / name / "main.gin").write_text("include 'base.gin'\n")
    for name, value in (("one", 0.1), ("other", 0.3), ("one", 0.1)):
        with config([tmp_path / name / "main.gin"]):
            assert clip.settings()["eps_low"].value == value


def test_files_then_text_then_bindings(tmp_path: Path) -> None:
    file = tmp_path / "main.gin"
    file.write_text("clip.eps_low = 0.1\nclip.eps_high = 0.1\ngroup_mean_std.eps = 0.1\n")
    with config([file], ["clip.eps_low = 0.3"], "clip.eps_low = 0.2\nclip.eps_high = 0.2\n"):
        values = [clip.settings()[n].value for n in ("eps_low", "eps_high")]
        assert [*values, group_mean_std.settings()["eps"].value] == [0.3, 0.2, 0.1]


def test_config_text_parses_to_the_same_config(tmp_path: Path) -> None:
    long = " ".join(["word"] * 60)
    bindings = [
        "WIDE = 0.4",
        "clip.eps_high = %WIDE",
        "grpo.aggregator = @token_mean",
        "dapo.shaping = [@soft_overlong]",
        f"policy_path/macro = '{long}'",
        "policy.model = %policy_path/macro",
        "group_mean_std.eps = 1e-09",
        "grpo.kl_coef = 0.04",
    ]
    with config(bindings=bindings):
        text, before = config_text(), {k: repr(v) for k, v in bindings_in_force().items()}
        card = VARIANTS["grpo"]().card()
    with config(text=text):
        assert config_text() == text
        assert {k: repr(v) for k, v in bindings_in_force().items()} == before
        assert VARIANTS["grpo"]().card() == card
    assert all(" = " in line for line in text.splitlines())


def test_a_required_setting_says_how_to_set_it() -> None:
    from core.loop.recipe import train

    with pytest.raises(GrpoLabError, match=r"train\.variant is not set: bind it, e\.g\. train\.variant = "):
        train()


def test_it_does_so_too_where_gin_makes_the_call() -> None:
    made = ["train.variant = @grpo()", "train.task = @files()", "train.generator = @native()"]
    with config(bindings=made), pytest.raises(GrpoLabError, match=r"files\.path is not set: bind it"):
        registry.SETTINGS["train"]()
