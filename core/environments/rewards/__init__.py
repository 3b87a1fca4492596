"""Rewards: verifiers of answers, a learnt one, and a judge. Importing the package registers each."""

from core.environments.rewards import code, countdown, format_reward, judge, logic, math, reward_model

__all__ = ["code", "countdown", "format_reward", "judge", "logic", "math", "reward_model"]
