"""What may leave the machine."""

import platform

import pytest

from experiments.doctor import scrub as module
from experiments.doctor.scrub import scrub, scrubbed


@pytest.fixture(autouse=True)
def _known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "tower")
    monkeypatch.setattr(module, "_user", lambda: "ada")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("SHORT", "cpu")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("cannot read /home/ada/models/Qwen/config.json: gone", "cannot read .../config.json: gone"),
        ("policy.model = '/home/ada/m': there is", "policy.model = '.../m': there is"),
        ("~/models/mine and ./here/it", ".../mine and .../it"),
        ("of ada on tower", "of <user> on <host>"),
        ("/home/ada", ".../<user>"),
        ("towers and Canada stay", "towers and Canada stay"),
        ("denied: 0123456789abcdef!", "denied: <environment>!"),
        ("runs compute on the cpu", "runs compute on the cpu"),
        ("3/4 of 12 GFLOP/s, tokens/s", "3/4 of 12 GFLOP/s, tokens/s"),
        ("pip install 'torch<2.14,>=2.9'", "pip install 'torch<2.14,>=2.9'"),
        (r"C:\Users\ada\x.py", r".../x.py"),
        ("pytorch.org/get-started", "pytorch.org/get-started"),
    ],
)
def test_text_by_hand(text: str, left: str) -> None:
    assert scrub(text) == left


def test_every_text_in_plain_data_is_scrubbed_and_numbers_stay() -> None:
    assert scrubbed({"of ada": ["/a/b", 1, None, {"x": "tower"}], "y": (2.5, True)}) == {
        "of <user>": [".../b", 1, None, {"x": "<host>"}],
        "y": [2.5, True],
    }
