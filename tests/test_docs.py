"""The generated pages say what the code says."""

from core import ADVANTAGES, AGGREGATORS, CORRECTIONS, FILTERS, KLS, OBJECTIVES, SHAPINGS, VARIANTS
from core.store import read_json
from experiments.catalogue import FIGURES, PAGE, page


def test_the_page_of_variants_is_the_registrys() -> None:
    """Written anew by `python -m experiments.catalogue`, which also measures."""
    assert PAGE.read_text() == page(read_json(FIGURES))


def test_the_fidelity_matrix_names_every_part_and_variant() -> None:
    """Written anew by `make conformance`."""
    text = PAGE.with_name("fidelity.md").read_text()
    registries = (ADVANTAGES, OBJECTIVES, AGGREGATORS, KLS, CORRECTIONS, FILTERS, SHAPINGS, VARIANTS)
    missing = [name for registry in registries for name in registry if f"| `{name}` |" not in text]
    assert not missing
