"""Verifiers of answers. Importing the package registers each."""

from core.rewards import code, countdown, format, logic, math

__all__ = ["code", "countdown", "format", "logic", "math"]
