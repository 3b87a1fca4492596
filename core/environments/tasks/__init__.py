"""Tasks: where problems come from. Importing the package registers each."""

from core.environments.tasks import chain_sums, files, islanders, lookups, reasoning, stack_programs

__all__ = ["chain_sums", "files", "islanders", "lookups", "reasoning", "stack_programs"]
