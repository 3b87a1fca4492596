"""The rows of an optimizer step: what parts of the maths ask for by name."""

from collections.abc import Mapping

import torch
from torch import Tensor

from core.parts.batch import Batch
from core.parts.contracts import row_tensors


class RowTensors(dict[str, Tensor]):
    """A minibatch's tensors as rows: [B, T], and [B] for `lengths`, `truncated`, `rewards`."""

    @classmethod
    def of(cls, batch: Batch, advantages: Tensor, version: int | None = None) -> "RowTensors":
        """All filled fields that a part may ask for; with the policy's `version`, also the age of each token."""
        filled = {name: batch.get(name) for name in row_tensors()}
        rows = cls(
            {name: x.flatten(0, 1) for name, x in filled.items() if x is not None},
            advantages=advantages.flatten(0, 1),
        )
        sampled = batch.get("token_version")
        if version is not None and sampled is not None:
            rows["token_age"] = version - sampled.flatten(0, 1)
        return rows

    @property
    def denominator(self) -> Tensor:
        """[B, T], bool: tokens that an aggregator counts; `mask` are those that are in the loss."""
        return self.get("denominator", self["mask"])

    def at(self, rows: Tensor) -> "RowTensors":
        """These rows of every tensor."""
        return RowTensors({name: x[rows] for name, x in self.items()})


def inside(tensors: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    """The same tensors, 0 outside the mask.

    A where() after the objective would keep a NaN or an overflow at a masked token out of the loss, not out of the
    gradient (0 * inf): so nothing from outside the mask goes in.
    """
    return {
        name: torch.where(mask, x, 0.0) if x.ndim == 2 and x.is_floating_point() else x for name, x in tensors.items()
    }
