"""Environments: what answers a policy turn by turn. Importing the package registers each."""

from core.environments.episodes import lookup_table

__all__ = ["lookup_table"]
