"""What a server runs in its workers, to follow the trainer."""

from typing import Any

from core.generation.vllm.engine import avoid_compiling_ranks, repack_tied_head


class FolderReader:
    """Mixed into the server's workers; called through its /collective_rpc."""

    def read_folder(self: Any, folder: str) -> None:
        """Take over the weights in a folder, named as in transformers."""
        avoid_compiling_ranks()
        self._folder_read = None
        self.reload_weights(weights_path=folder)
        repack_tied_head(self)
        self._folder_read = folder

    def folder_read(self: Any) -> str | None:
        """The folder that was read last: whose weights these are."""
        folder: str | None = getattr(self, "_folder_read", None)
        return folder
