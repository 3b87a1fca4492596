"""Variants inside TRL's GRPO trainer, with the same weights as our own loop gives."""
