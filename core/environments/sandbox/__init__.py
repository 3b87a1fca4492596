"""Runs programs that models have written, shut in as far as the kernel can, and takes back plain values."""

from core.environments.sandbox.levels import LEVELS, Limits, SandboxError
from core.environments.sandbox.probe import Sandbox, require, sandbox
from core.environments.sandbox.process import Program, ProgramError
from core.environments.sandbox.scorer import Scorer

__all__ = ["LEVELS", "Limits", "Program", "ProgramError", "Sandbox", "SandboxError", "Scorer", "require", "sandbox"]
