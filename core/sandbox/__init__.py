"""Runs programs that models have written, shut in as far as the kernel can, and takes back plain values."""

from core.sandbox.levels import LEVELS, Limits, SandboxError
from core.sandbox.probe import Sandbox, require, sandbox
from core.sandbox.process import Program, ProgramError
from core.sandbox.scorer import Scorer

__all__ = ["LEVELS", "Limits", "Program", "ProgramError", "Sandbox", "SandboxError", "Scorer", "require", "sandbox"]
