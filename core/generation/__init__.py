"""Generators: what turns prompts into responses. Importing the package registers each."""

from core.generation import native, vllm
from core.generation.base import Generation, Generator, Request

__all__ = ["Generation", "Generator", "Request", "native", "vllm"]
