"""The training loop: recipe, rollout, scoring, loss, update, evaluation, metrics."""
