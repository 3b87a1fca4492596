"""Tasks: where problems come from. Importing the package registers each."""

from core.tasks import chain_sums, reasoning

__all__ = ["chain_sums", "reasoning"]
