from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.statistics.ability import pass_at_k


def test_pass_at_k_by_hand() -> None:
    # one question with 1 of 4 right: k samples miss it with chance (4 - k) / 4; one with none; one with all
    assert pass_at_k([[1, 0, 0, 0]]) == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1])
    assert pass_at_k([[0, 0, 0, 0]]) == pytest.approx([0, 0, 0, 0])
    assert pass_at_k([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]) == pytest.approx([5 / 12, 6 / 12, 7 / 12, 2 / 3])


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_pass_at_k_is_the_share_of_all_choices_of_k_samples(rows: list[list[bool]]) -> None:
    for k, value in enumerate(pass_at_k(rows), start=1):
        by_choice = [np.mean([any(choice) for choice in combinations(row, k)]) for row in rows]
        assert value == pytest.approx(np.mean(by_choice))


@pytest.mark.parametrize("table", [[], [[]], [1, 0], [[0.5, 1.0]], [[float("nan")]]])
def test_what_is_no_table_of_answers_is_refused(table: Any) -> None:
    with pytest.raises(ValueError, match="right or wrong answers"):
        pass_at_k(table)
