"""Objectives that imitate: no reward and no ratio."""

from torch import Tensor

from core import objective


@objective(axes={"ratio": "none, and no weight: rewards do not count", "clip": "none"})
def log_likelihood(logps: Tensor) -> Tensor:
    """Minus the log-probability of every response token, whatever the response's reward.

        l_it = -log pi(y_it)

    [B, T], nats. With `token_mean` the cross-entropy of supervised fine-tuning, prompts left out. For responses that
    are all to be imitated: on the policy's own samples its expected gradient is 0. Source: maximum likelihood; as a
    stage before RL, InstructGPT (Ouyang et al. 2022, arXiv:2203.02155, section 3.5).
    """
    return -logps
