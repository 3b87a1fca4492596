"""The generated pages say what the code says, and the page of metrics names every column."""

import ast
import inspect
import re
from collections.abc import Callable

import core.loop.metrics
import core.loop.train
from core import ADVANTAGES, AGGREGATORS, CORRECTIONS, FILTERS, KLS, OBJECTIVES, SHAPINGS, VARIANTS
from core.store.files import read_json
from experiments.maintenance.catalogue import FIGURES, PAGE, page


def test_the_page_of_variants_is_the_registrys() -> None:
    """Written anew by `python -m experiments.maintenance.catalogue`, which also measures."""
    assert PAGE.read_text() == page(read_json(FIGURES))


def test_the_fidelity_matrix_names_every_part_and_variant() -> None:
    """Written anew by `make conformance`."""
    text = PAGE.with_name("fidelity.md").read_text()
    registries = (ADVANTAGES, OBJECTIVES, AGGREGATORS, KLS, CORRECTIONS, FILTERS, SHAPINGS, VARIANTS)
    missing = [name for registry in registries for name in registry if f"| `{name}` |" not in text]
    assert not missing


def keys_of(function: Callable[..., object], with_key: str) -> set[str]:
    """The keys of the dictionary in a function's source that has this one."""
    dictionaries = [node for node in ast.walk(ast.parse(inspect.getsource(function))) if isinstance(node, ast.Dict)]
    found = [{key.value for key in node.keys if isinstance(key, ast.Constant)} for node in dictionaries]
    return {str(key) for keys in found if with_key in keys for key in keys}


def test_the_page_of_metrics_names_every_column_that_the_loop_writes() -> None:
    """But for what objectives log, which is any name."""
    written = {
        "budget_share",
        "evaluation",
        "seconds",
        *keys_of(core.loop.metrics.step_record, "reward"),
        *keys_of(core.loop.metrics._kl_record, "kl"),
        *keys_of(core.loop.metrics.value_record, "value_bias"),
        *keys_of(core.loop.train._train, "sampled_tokens"),
    }
    assert len(written) > 30
    assert written - set(re.findall(r"`(\w+)`", PAGE.with_name("metrics.md").read_text())) == set()
