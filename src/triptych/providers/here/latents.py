"""Latents on disk before they are decoded: hours of denoising are never lost to the last second."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from triptych.media import files
from triptych.types import Request

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Group", "Latents", "groups"]


@final
@dataclass(frozen=True, slots=True)
class Group:
    """Samples that are drawn at once: of seeds seed, seed + 1, ..."""

    first: int  # its place among all samples of the request
    seed: int
    count: int


def groups(request: Request) -> Iterator[Group]:
    """The samples of a resolved request, batch_size at a time."""
    size, seed = request.options.get("batch_size", 1), request.seed or 0
    for first in range(0, request.count, size):
        yield Group(first, seed + first, min(size, request.count - first))


@final
@dataclass(frozen=True, slots=True)
class Latents:
    """What one ticket keeps, a file a group."""

    folder: Path

    def path(self, group: Group) -> Path:
        return self.folder / f"latents-{group.first}-{group.count}.safetensors"

    def has(self, group: Group) -> bool:
        return self.path(group).is_file()

    def save(self, group: Group, latents: "Tensor", made: Mapping[str, str]) -> None:
        """latents: (B, C, *S); made: on what they were made. Raises FileProblem."""
        from safetensors.torch import save

        self.folder.mkdir(parents=True, exist_ok=True)
        data = save({"latents": latents.detach().cpu().contiguous()}, metadata=dict(made))
        files.write(self.path(group), data)

    def load(self, group: Group) -> tuple["Tensor", dict[str, str]]:
        """(B, C, *S) on the CPU, and what was said of them."""
        from safetensors import safe_open

        with safe_open(self.path(group), framework="pt") as file:
            return file.get_tensor("latents"), dict(file.metadata() or {})

    def tell(self, request: Request) -> str:
        """What is there, in words; empty for nothing."""
        total = request.count
        there = sum(group.count for group in groups(request) if self.has(group))
        if not there:
            return ""
        return "the latents" if there == total else f"the latents of {there} of {total}"

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
