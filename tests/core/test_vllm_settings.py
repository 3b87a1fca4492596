"""What can be said of the vLLM generator without vLLM."""

import importlib.util

import pytest

from core import SETTINGS, GrpoLabError
from core.generation.native import native
from core.generation.vllm import vllm
from core.registry import config


def test_a_server_and_its_folder_go_together() -> None:
    with pytest.raises(GrpoLabError, match=r"vllm.url and vllm.sync_folder go together"):
        vllm(url="http://127.0.0.1:8000")


def test_a_server_that_does_not_answer_is_named() -> None:
    with pytest.raises(GrpoLabError, match=r"127.0.0.1:9/version does not answer"):
        vllm(url="http://127.0.0.1:9/", sync_folder="sync").start()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_remedy_is_said_before_anything_runs() -> None:
    with pytest.raises(GrpoLabError, match=r"pip install 'grpo-lab\[vllm\]'"):
        vllm().start()


def test_a_recipe_can_be_built_without_vllm_and_corrects_variants_that_do_not() -> None:
    bindings = ["train.variant = @grpo()", "train.task = @chain_sums()", "train.generator = @vllm()"]
    with config(bindings=[*bindings, "train.correction = @token_truncated", "token_truncated.cap = 3.0"]):
        recipe = SETTINGS["train"]()
    assert recipe.variant.card()["correction"] == "token_truncated(cap=3.0, floor=0.0)"
    assert not recipe.generator.exact
    assert native().exact
