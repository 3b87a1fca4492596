"""Methods side by side: which models each holds, by hand; and a critic in the forecast."""

import json

import pytest

from core import GrpoLabError
from experiments.cli.main import main
from experiments.memory.methods import Models, billions, read_sizes

FOUR = ["--variants", "ppo,grpo,remax,rloo", "--sizes", "policy=7B,critic=7B,reference=7B,reward=2B"]


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, float]]:
    assert main(["memory", *arguments, "--json"]) == 0
    rows: dict[str, dict[str, float]] = json.loads(capsys.readouterr().out)
    return rows


def test_the_four_models_of_ppo_are_65_billion_equivalents(capsys: pytest.CaptureFixture[str]) -> None:
    """7B * 4 + 7B * 4 + 7B + 2B; without critic and KL a policy and a reward model are left, with KL a reference."""
    rows = shown(capsys, *FOUR, "-b", "ppo.kl_coef = 0.05", "-b", "grpo.kl_coef = 0.05")
    assert {name: row["equivalents"] / 1e9 for name, row in rows.items()} == {
        "ppo": 65.0,
        "grpo": 37.0,
        "remax": 30.0,
        "rloo": 30.0,
    }
    verified = shown(capsys, "--variants", "ppo,grpo", "--sizes", "policy=7B")
    assert [row["equivalents"] / 1e9 for row in verified.values()] == [56.0, 28.0]
    frozen = shown(capsys, "--variants", "ppo", "--sizes", "policy=7B", "-b", "critic.trunk = 'frozen'")
    assert frozen["ppo"]["critic"] == 0


def test_a_size_that_no_model_has_is_reported_as_unused(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--sizes", "policy=7B,critic=7B,reward=2B,reference=7B", "--json"]
    assert main(["memory", "--variants", "ppo", *sizes]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["ppo"]["equivalents"] == 58e9
    assert shown.err.splitlines() == [
        "ppo holds no reference: its KL penalty has the coefficient 0; with -b 'ppo.kl_coef = 0.05' it would"
    ]
    assert main(["memory", "--variants", "ppo", *sizes, "-b", "ppo.kl_coef = 0.05"]) == 0
    shown = capsys.readouterr()
    assert (json.loads(shown.out)["ppo"]["equivalents"], shown.err) == (65e9, "")
    assert main(["memory", "--variants", "grpo_trl", *sizes]) == 0
    assert "grpo_trl holds no critic: none of its parts asks for one" in capsys.readouterr().err


def test_bytes_by_hand() -> None:
    """A trained parameter has 2 + 4 + 4 + 8 bytes, a frozen one 2."""
    models = Models(policy=10.0, critic=5.0, reference=10.0, reward=1.0)
    assert models.bytes == {"weights": 2 * 26, "masters": 4 * 15, "gradients": 4 * 15, "moments": 8 * 15}
    assert models.equivalents == 4 * 15 + 11


def test_sizes_are_read() -> None:
    assert read_sizes("policy=1.5B, reward=300M") == {
        "policy": 1.5e9,
        "critic": 1.5e9,
        "reference": 1.5e9,
        "reward": 3e8,
    }
    assert [billions(x) for x in (65e9, 1.5e9, 333_888, 12, 0)] == ["65B", "1.5B", "334K", "12", ""]
    for wrong in ("policy=7G", "policy", "judge=7B,policy=7B", "reward=2B"):
        with pytest.raises(GrpoLabError, match="--sizes"):
            read_sizes(wrong)


def test_a_critic_is_a_second_model_with_its_optimizer(capsys: pytest.CaptureFixture[str]) -> None:
    """The embedded model is tied: 333,888 weights, float32, with two moments; head too small to count."""
    rows = shown(capsys, "-c", "embedded", "--variants", "ppo,grpo")
    train, alone = (rows[name]["parts"]["train"] for name in ("ppo", "grpo"))  # type: ignore[index]
    assert train["critic and its optimizer"] == 333_888 * 12
    assert "critic and its optimizer" not in alone
    assert rows["ppo"]["equivalents"] == 2 * rows["grpo"]["equivalents"] == 8 * 333_888
    assert rows["ppo"]["peak"] > rows["grpo"]["peak"]
    # the policy's gradients wait meanwhile
    assert rows["ppo"]["moments"]["train"] == "backward through the critic"  # type: ignore[index]
    assert train["gradients"] == 333_888 * 4
    with_adapters = shown(capsys, "-c", "embedded", "--variants", "ppo", "-b", "policy.lora_rank = 4")
    critic = with_adapters["ppo"]["parts"]["train"]["critic and its optimizer"]  # type: ignore[index]
    assert 333_888 * 4 < critic < 333_888 * 8
    # policy and critic each hold the model's weights, frozen, and adapters
    added = (with_adapters["ppo"]["equivalents"] - 2 * 333_888) / 4
    assert critic == 333_888 * 4 + added / 2 * 12
    # a critic of its own weights has no adapters, whatever the policy has
    other = shown(
        capsys,
        "-c",
        "embedded",
        "--variants",
        "ppo",
        "-b",
        "policy.lora_rank = 4",
        "-b",
        "critic.model = 'embedded'",
        "-b",
        "policy.dtype = 'bfloat16'",
    )
    assert other["ppo"]["parts"]["train"]["critic and its optimizer"] == 333_888 * 14  # type: ignore[index]


def test_tables_name_what_they_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "--variants", "ppo,remax"]) == 0
    out = capsys.readouterr().out
    for word in ("ppo", "remax", "critic and its optimizer", "peak, forecast", "parameter equivalents"):
        assert word in out
    assert main(["memory", *FOUR]) == 0
    out = capsys.readouterr().out
    for word in ("reward", "equivalents", "58B", "GiB", "moments"):
        assert word in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "ppo,grop"], "did you mean grpo"),
        (["--sizes", "policy=7B"], "name them with --variants"),
        (["--variants", "ppo", "--sizes", "policy=7B", "-c", "embedded"], "leave --config"),
        (["--variants", "ppo", "--sizes", "policy=7B", "-b", "grpo.kl_coef = 0.1"], "'grpo.kl_coef' had no effect"),
        (["--variants", "ppo", "-b", "grpo.kl_coef = 0.1"], "'grpo.kl_coef' had no effect"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", *arguments]) == 2
    assert message in capsys.readouterr().err
