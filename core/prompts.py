"""Prompts as a tokenizer's text and tokens: the same for policies, reward models and judges."""

from transformers import PreTrainedTokenizerBase

from core.errors import GrpoLabError, brief
from core.problems import Messages


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str | Messages, whose: str = "the model") -> list[int]:
    """A prompt's token ids, with what the tokenizer begins texts with, but without an end of sequence after it.

    Chat messages go through the template. Raises `GrpoLabError` where it cannot be used, saying `whose` it is.
    """
    if not isinstance(prompt, str):
        return tokens_of(tokenizer, chat_text(tokenizer, prompt, whose))
    ids: list[int] = tokenizer(prompt, add_special_tokens=True)["input_ids"]
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
    """The token ids of a prompt and somebody's response to it, which cannot put words into the reader's own form.

    A special token that the response spells, the end of a turn say, is read as the letters that it is written in.
    """
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    if any(token in response for token in special):
        letters: list[int] = tokenizer(response, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [*prompt_tokens(tokenizer, prompt, whose), *letters]
    if isinstance(prompt, str):
        ids: list[int] = tokenizer(prompt + response, add_special_tokens=True)["input_ids"]
        return ids
    return tokens_of(tokenizer, chat_text(tokenizer, prompt, whose) + response)


def chat_text(tokenizer: PreTrainedTokenizerBase, messages: Messages, whose: str = "the model") -> str:
    """Chat messages as text by the tokenizer's template, up to where the response begins."""
    if not tokenizer.chat_template:
        raise GrpoLabError(
            f"the prompts are chat messages, but the tokenizer of {whose} has no chat template: give prompts as text "
            "(files.template = 'plain', say), or a tokenizer with one"
        )
    try:
        return str(tokenizer.apply_chat_template(list(map(dict, messages)), add_generation_prompt=True, tokenize=False))
    except Exception as error:  # a template is a program of its own, and raises what it likes
        roles = ", ".join(str(message.get("role")) for message in messages)
        raise GrpoLabError(
            f"the chat template of {whose} refuses these messages ({roles}): {brief(error)}. Write what it does not "
            "know, the system prompt say, into the first message of the user"
        ) from error
