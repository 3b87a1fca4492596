"""Generators: what turns prompts into responses. Importing the package registers each."""

from core.generation import native, perturbed, vllm
from core.generation.base import Generation, Generator, Request

__all__ = ["Generation", "Generator", "Request", "native", "perturbed", "vllm"]
