"""Sources of responses other than the policy: data sets. Importing the package registers each."""

from core.environments.datasets import pairs, solutions

__all__ = ["pairs", "solutions"]
