"""Verifiers of answers, and a judge. Importing the package registers each."""

from core.rewards import code, countdown, format, judge, logic, math

__all__ = ["code", "countdown", "format", "judge", "logic", "math"]
