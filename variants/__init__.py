"""The methods: one short file each. Importing the package registers every variant."""

from variants import dapo, dr_grpo, grpo, reinforce, remax, rloo

__all__ = ["dapo", "dr_grpo", "grpo", "reinforce", "remax", "rloo"]
