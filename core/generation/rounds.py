"""Episodes by generators that know none: a turn of all rows at a time, each prompted with all that was said before."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core.generation.base import PER_TOKEN, Generation, Generator, Request
from core.generation.episodes import Episodes
from core.model.policy import Policy


def play(generator: Generator, policy: Policy, requests: Sequence[Request]) -> list[Generation]:
    """Responses to each request, of several turns where it has `episodes`."""
    if all(request.episodes is None for request in requests) or getattr(generator, "plays_episodes", False):
        return generator.generate(policy, requests)
    return [play_by_rounds(generator, policy, request) for request in requests]


def play_by_rounds(generator: Generator, policy: Policy, request: Request) -> Generation:
    """Turn by turn of all rows that go on, each a prompt of its own: all that was said before."""
    episodes, S = request.episodes, request.samples
    assert episodes is not None
    B, most = len(request.prompts) * S, request.max_tokens
    if B == 0:
        return Generation.empty(S, policy.device)
    said: list[list[tuple[Tensor, ...]]] = [[] for _ in range(B)]  # by row, pieces of what generators give
    widths: list[tuple[int, ...]] = []
    while len(live := (~episodes.over).nonzero()[:, 0]):
        rooms = sorted({most - int(n) for n in episodes.length[live]})
        asked = [live[most - episodes.length[live] == room] for room in rooms]
        turn = int(episodes.turn[live[0]])
        answers = generator.generate(
            policy,
            [
                replace(
                    request,
                    prompts=[_so_far(request.prompts[row // S], said[row]) for row in rows.tolist()],
                    samples=1,
                    max_tokens=room,
                    slots=[request.slot_numbers[row // S] for row in rows.tolist()],
                    sample_numbers=[row % S for row in rows.tolist()],
                    turn=turn,
                    episodes=None,
                )
                for room, rows in zip(rooms, asked, strict=True)
            ],
        )
        for rows, answer in zip(asked, answers, strict=True):
            given = [x[:, 0] for name in PER_TOKEN if (x := getattr(answer, name)) is not None]
            widths = [tuple(x.shape[2:]) for x in given]
            lengths = answer.mask[:, 0].sum(-1).tolist()
            for i, row in enumerate(rows.tolist()):
                said[row].append(tuple(x[i, : lengths[i]] for x in given))
                for token in given[0][i, : lengths[i]].cpu():
                    episodes.take(torch.tensor([row]), token[None])
                if not episodes.over[row] and episodes.turn[row] == turn and not episodes.reads(row):
                    episodes.end_turn(row)  # by what is no token, as where a text stops sampling
                said[row] += _observation(episodes, row, given)
    drawn = [
        torch.stack([_padded([piece[k] for piece in row], most, width) for row in said])
        for k, width in enumerate(widths)
    ]
    return Generation.of_episodes(episodes, [x.view(-1, S, *x.shape[1:]) for x in drawn])


def _observation(episodes: Episodes, row: int, like: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """What a row reads after its turn, as a piece of its tokens."""
    read: list[Tensor] = []
    one = torch.tensor([row])
    while episodes.reads(row) and (forced := episodes.forced(one)) is not None:
        read.append(forced[1])
        episodes.take(one, forced[1])
    if not read:
        return []
    tokens = torch.cat(read).to(like[0].device)
    # of a mask of kept tokens all: a distribution cut down to none has no logarithms
    return [(tokens, *(x.new_full((len(tokens), *x.shape[2:]), x.dtype == torch.bool) for x in like[1:]))]


def _so_far(prompt: Tensor, said: Sequence[tuple[Tensor, ...]]) -> Tensor:
    return torch.cat([prompt, *(piece[0].to(prompt.device) for piece in said)])


def _padded(pieces: Sequence[Tensor], length: int, width: tuple[int, ...]) -> Tensor:
    row = torch.cat(list(pieces))
    return torch.cat([row, row.new_zeros(length - len(row), *width)])
