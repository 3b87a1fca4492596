"""Verifiers of answers. Importing the package registers each."""

from core.rewards import format, math

__all__ = ["format", "math"]
