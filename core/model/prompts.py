"""Prompts as a tokenizer's text and tokens: the same for policies, reward models and judges.

A message's content is text: where it spells a special token, e.g. `<|im_end|>`, it gets these characters' tokens.
Roles, and where a message ends, are for the template alone to mark.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from jinja2 import TemplateSyntaxError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from core.errors import GrpoLabError, brief, near
from core.parts.problems import Messages, Problem


def read_template(given: str, setting: str = "policy.chat_template") -> str:
    """A chat template: of a file, or the text itself, which has {{ or {% in it.

    Raises `GrpoLabError` where there is no such file, or no template in it, saying in which line.
    """
    is_text = "{{" in given or "{%" in given
    where = setting if is_text else f"{setting} = {given!r:.200}"
    text = given if is_text else _read_text(Path(given).expanduser(), where)
    try:
        render_jinja_template([[{"role": "user", "content": ""}]], chat_template=text, add_generation_prompt=True)
    except TemplateSyntaxError as error:
        raise GrpoLabError(f"{where}, line {error.lineno}: no jinja: {error.message}") from error
    except Exception:  # a program of its own: it misses what comes with the tokenizer, or refuses so little
        pass
    if "messages" not in text:
        raise GrpoLabError(f"{where}: a chat template says what becomes of `messages`, of which this one has none")
    return text


def _read_text(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeError as error:
        raise GrpoLabError(f"{where}: not UTF-8: {error}") from error
    except FileNotFoundError as error:
        there = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise GrpoLabError(
            f"{where}: there is no such file: {near(path.name, there)}; a template itself has {{{{ or {{% in it"
        ) from error
    except (OSError, ValueError) as error:  # a name with a null is no path
        raise GrpoLabError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str | Messages, whose: str = "the model") -> list[int]:
    """A prompt's token ids, with what the tokenizer begins texts with, but without an end of sequence after it.

    Chat messages go through the template. Raises `GrpoLabError` where it cannot be used, saying `whose` it is. A prompt
    that is text stands as it is: it may be a template of its own.
    """
    if not isinstance(prompt, str):
        return chat_tokens(tokenizer, prompt, whose=whose)
    return _encoded(tokenizer, prompt)


def text_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The same for untrusted text, in which special tokens are plain text."""
    special = _special(tokenizer)
    return _encoded(tokenizer, text, split_special_tokens=special is not None and bool(special.search(text)))


def _encoded(tokenizer: PreTrainedTokenizerBase, prompt: str, *, split_special_tokens: bool = False) -> list[int]:
    ids: list[int] = tokenizer(prompt, add_special_tokens=True, split_special_tokens=split_special_tokens)["input_ids"]
    end = tokenizer.eos_token_id
    if ids[-1:] == [end] and tokens_of(tokenizer, prompt)[-1:] != [end]:
        ids = ids[:-1]  # the tokenizer's own: nothing would follow it
    return ids


def tokens_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of a text as it stands."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def with_response(
    tokenizer: PreTrainedTokenizerBase, prompt: str | Messages, response: str, whose: str = "the model"
) -> list[int]:
    """The token ids of a prompt and an untrusted response to it, which cannot imitate special tokens.

    A special token that the response spells, e.g. the end of a turn, is read as the letters that it is written in.
    """
    if not isinstance(prompt, str):
        return chat_tokens(tokenizer, prompt, response, whose)
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    if any(token in response for token in special):
        return [*prompt_tokens(tokenizer, prompt, whose), *_literal_tokens(tokenizer, response)]
    ids: list[int] = tokenizer(prompt + response, add_special_tokens=True)["input_ids"]
    return ids


def chat_tokens(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, response: str = "", whose: str = "the model"
) -> list[int]:
    """The token ids of chat messages, and of what is answered so far."""
    special = _special(tokenizer)
    if special is None or not any(map(special.search, [*_strings([_said(m) for m in messages]), response])):
        return tokens_of(tokenizer, chat_text(tokenizer, messages, whose) + response)
    spelled: list[str] = []

    def hidden(text: str) -> str:
        parts = special.split(text)
        spelled.extend(special.findall(text))
        first = len(spelled) - len(parts) + 1
        return "".join(part + (_MARK.format(first + i) if i + 1 < len(parts) else "") for i, part in enumerate(parts))

    shown = [{**m, **_each_string(_said(m), hidden)} for m in messages]
    text = chat_text(tokenizer, shown, whose) + hidden(response)
    pieces = re.split(_MARK.format(r"(\d+)"), text)
    return [
        token
        for i, piece in enumerate(pieces)
        for token in (_literal_tokens(tokenizer, spelled[int(piece)]) if i % 2 else tokens_of(tokenizer, piece))
    ]


def _said(message: Mapping[str, Any]) -> dict[str, Any]:
    """All of a message but who says it."""
    return {name: value for name, value in message.items() if name != "role"}


def _strings(value: Any) -> Iterator[str]:
    """Every text in lists and objects, but the names in these."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(each)


def _each_string(value: Any, change: Callable[[str], str]) -> Any:
    """The same with every one of these texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _each_string(each, change) for name, each in value.items()}
    return [_each_string(each, change) for each in value] if isinstance(value, list | tuple) else value


_MARK = "\ue0f0\ue0f1{}\ue0f2"  # for private use: no template and no tokenizer makes anything of it


def _special(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """Where a text spells a special token, if there are any; one of a single character can be written in no other way.

    The mark itself is among them, so that no text can stand for another.
    """
    tokens = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    tokens = sorted((token for token in tokens if len(token) > 1), key=len, reverse=True)
    return re.compile("|".join([*map(re.escape, tokens), "\ue0f0"])) if tokens else None


def _literal_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of the characters of a text, special tokens among them."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def chat_text(tokenizer: PreTrainedTokenizerBase, messages: Messages, whose: str = "the model") -> str:
    """Chat messages as text by the tokenizer's template, up to where the response begins."""
    if not tokenizer.chat_template:
        own = ", or one of your own (policy.chat_template)" if whose == "the model" else ""
        raise GrpoLabError(
            f"the prompts are chat messages, but the tokenizer of {whose} has no chat template: give prompts as text "
            f"(e.g. files.template = 'plain'), or a tokenizer with one{own}"
        )
    try:
        return str(tokenizer.apply_chat_template(list(map(dict, messages)), add_generation_prompt=True, tokenize=False))
    except Exception as error:  # a template is a program of its own, and raises what it likes
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise GrpoLabError(
            f"the chat template of {whose} refuses these messages ({roles}): {brief(error)}. Put what it does "
            "not know, such as a system prompt, into the first user message"
        ) from error


def observation_tokens(
    tokenizer: PreTrainedTokenizerBase, observation: str, role: str | None, ends: Sequence[int]
) -> list[int]:
    """The token ids of what a model reads after a turn that it has ended by one of `ends`, and before its next.

    With a `role` it is a message of that role by the chat template, up to where the next response begins; without, the
    text alone. Nothing that was said before is encoded again.
    """
    if role is None:
        return _literal_tokens(tokenizer, observation)
    turn, said = _MARK.format("turn"), _MARK.format("said")
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": turn},
        {"role": role, "content": said},
    ]
    text = chat_text(tokenizer, messages)
    if turn not in text or said not in text.partition(turn)[2]:
        raise GrpoLabError(
            f"the chat template of the model leaves out a message of the role {role!r} after a response: give the "
            "environment a role that it knows, or a template that knows this one (policy.chat_template)"
        )
    before, _, after = text.partition(turn)[2].partition(said)
    # the end of its turn is the model's own, and stands there already
    for end in sorted(map(str, tokenizer.convert_ids_to_tokens(list(ends))), key=len, reverse=True):
        before = before.removeprefix(end)
    return [*tokens_of(tokenizer, before), *_literal_tokens(tokenizer, observation), *tokens_of(tokenizer, after)]


Heard: TypeAlias = set[tuple[tuple[str, bool, bool], ...]]
"""Kinds of conversations of which a template is known to leave out nothing: role, has content, calls tools."""


def problem_tokens(tokenizer: PreTrainedTokenizerBase, problem: Problem, heard: Heard) -> list[int]:
    """The token ids of a problem's prompt; what is wrong with it is said with the place that it was read from.

    Raises `GrpoLabError` too where the template leaves out a message of somebody's data, as it may one of a role that
    it does not know.
    """
    try:
        ids = prompt_tokens(tokenizer, problem.prompt)
        if problem.place and not isinstance(problem.prompt, str):
            _check_heard(tokenizer, problem.prompt, heard)
    except GrpoLabError as error:
        if not problem.place:
            raise
        raise GrpoLabError(f"{problem.place}: {error}") from error
    return ids


def _check_heard(tokenizer: PreTrainedTokenizerBase, messages: Messages, heard: Heard) -> None:
    """Ask the template once for each kind of conversation, with contents that can be told apart.

    The content beside a call of tools may go.
    """
    kind = tuple((m["role"], bool(m.get("content")), bool(m.get("tool_calls"))) for m in messages)
    if kind in heard:
        return
    marks = [f"heard{n}heard" if has_content and not calls else "" for n, (_, has_content, calls) in enumerate(kind)]
    marked = [{**m, "content": mark} if mark else m for m, mark in zip(messages, marks, strict=True)]
    try:
        text = chat_text(tokenizer, marked)
    except GrpoLabError:
        return  # it expects more of the content than that it is text
    if lost := [place for place, mark in enumerate(marks) if mark not in text]:
        raise GrpoLabError(
            f"the chat template of the model leaves out message {lost[0] + 1} of {len(messages)}, of the role "
            f"{messages[lost[0]]['role']!r}: give it a role that the template knows, or a template that knows this one "
            "(policy.chat_template)"
        )
    heard.add(kind)
