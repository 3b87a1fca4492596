"""Policy objectives: the loss of each token, [B, T], minimised.

Notation: `d = logps - old_logps`, `q = exp(d)` the token's probability ratio, `A` the advantage, `sg` stop-gradient,
`m` the mask, `n` a row's counted tokens. What is handed in is 0 outside the mask.
"""

from estimators.objectives import covariance, divergence, sequence, token
from estimators.objectives.token import clip, policy_gradient

__all__ = ["clip", "covariance", "divergence", "policy_gradient", "sequence", "token"]
