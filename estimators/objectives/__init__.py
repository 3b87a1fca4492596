"""Policy objectives: the loss of each token, [B, T], minimised.

Notation: `d = logps - old_logps`, `q = exp(d)` the token's probability ratio, `A` the advantage, `sg` stop-gradient,
`m` the mask, `n` a row's counted tokens. What is handed in is 0 outside the mask.
Objectives on groups see and return [P, G, T].
"""

from estimators.objectives import covariance, divergence, likelihood, off_policy, preference, sequence, token
from estimators.objectives.token import clip, policy_gradient

__all__ = [
    "clip",
    "covariance",
    "divergence",
    "likelihood",
    "off_policy",
    "policy_gradient",
    "preference",
    "sequence",
    "token",
]
