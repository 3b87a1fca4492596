"""The episodes that the lens measures turns on: answer, or call a tool first, which pays or does harm.

At each turn but the last the policy decides to answer or to call the tool, one token, and then writes the answer or
the query, another. A good query is a hit with probability `HITS`, a poor one is a miss. In the last turn it can only
answer. The outcome is 1 for a right answer; a hit pays `HIT_REWARD`, and every turn after the first `turn_reward`.
"""

import math
from typing import Final

from experiments.lens.episodes import History, Reply, make_episodes
from experiments.lens.policy import TabularPolicy

ANSWER, CALL = 0, 1
"""What the policy decides at the beginning of a turn, as a token."""
MISS, HIT = 0, 1
KNOWS: Final = ((0.2, 0.9, 0.2), (0.4, 0.75, 0.34), (0.8, 0.9, 0.6))
"""For each prompt: how probable a right answer is without the tool, after a hit, after misses alone."""
CALLS: Final = 0.5
GOOD: Final = 0.6
"""How probable a call is, and a good query."""
HITS: Final = 0.8
HIT_REWARD: Final = 0.1
TURN_REWARD: Final = -0.2


def make_search(turns: int, turn_reward: float = TURN_REWARD) -> TabularPolicy:
    """Episodes of up to so many turns on the three prompts of `KNOWS`."""

    def world(_: int, history: History) -> list[Reply]:
        action = history.action
        paid = turn_reward if history.turn > 1 else 0.0
        if history.turn == turns:
            return [Reply(reward=paid, outcome=float(action[0]))]
        if len(action) == 1:
            return []
        decision, written = action
        if decision == ANSWER:
            return [Reply(reward=paid, outcome=float(written))]
        hits = HITS if written else 0.0
        replies = ((1 - hits, MISS, paid), (hits, HIT, paid + HIT_REWARD))
        return [Reply(probability, seen, reward, call=True) for probability, seen, reward in replies if probability]

    def logit(prompt: int, history: History, token: int) -> float:
        alone, hit, miss = KNOWS[prompt]
        chosen = hit if HIT in history.seen else miss if history.seen else alone
        if history.turn < turns and not history.action:
            chosen = CALLS
        elif history.action[:1] == (CALL,):
            chosen = GOOD
        return math.log(chosen if token else 1 - chosen)

    return make_episodes(world, logit, prompts=len(KNOWS))
