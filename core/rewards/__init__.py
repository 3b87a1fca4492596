"""Verifiers of answers. Importing the package registers each."""

from core.rewards import code, format, math

__all__ = ["code", "format", "math"]
