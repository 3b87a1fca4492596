"""What a machine lacks for a config, reported before a run starts."""

import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

from core.errors import GrpoLabError, brief
from core.model.loading import locate, similar_models
from core.parts.gin_reader import referenced
from core.parts.gin_text import resolved
from core.parts.registry import bindings_in_force

SECONDS = 5.0
"""Time limit for a hub's answer."""


def with_generator_errors(error: GrpoLabError) -> GrpoLabError:
    """The error of a recipe that cannot be built, with what its generator lacks, which would show later."""
    more = [message for message in _generator_errors() if message not in str(error)]
    return GrpoLabError("; and ".join([str(error), *more])) if more else error


def _generator_errors() -> Iterator[str]:
    value = bindings_in_force().get(("settings.train", "generator"))
    if referenced(value) is None:
        return
    try:
        generator = resolved(value)
        if hasattr(generator, "start"):
            generator.start()
    except GrpoLabError as error:
        yield str(error)


def refuse_unreachable(model: str) -> None:
    """Raise `GrpoLabError` for a model that is neither here nor in the cache, on a machine that reaches no hub."""
    from huggingface_hub import constants, try_to_load_from_cache

    folder, gguf = locate(model)
    where = f"policy.model = {model!r}: there is no such folder"
    host = urlparse(constants.ENDPOINT).hostname or ""
    try:
        is_here = gguf or Path(folder).is_dir() or isinstance(try_to_load_from_cache(folder, "config.json"), str)
    except ValueError as error:  # no id can be spelt so
        raise GrpoLabError(f"{where}{similar_models(model)}, and no hub model of that name ({brief(error)})") from error
    if is_here or (urllib.request.getproxies().get("https") and not constants.HF_HUB_OFFLINE):
        return
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        socket.create_connection((host, 443), SECONDS).close()
    except OSError as error:
        raise GrpoLabError(
            f"{where}{similar_models(model)}, no such model in the cache, and {host} cannot be "
            f"reached ({error}): give a folder, or download the model where there is a network"
        ) from error
