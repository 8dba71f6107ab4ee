"""Learned words: textual inversion (arXiv:2208.01618), vectors in a tower's table that a name stands for.

Read from the safetensors files that A1111 (`emb_params`), diffusers (one tensor, under the name) and trainers for SDXL
(`clip_l` and `clip_g`) write.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from triptych.engine.text.clip import WORDS
from triptych.errors import FileProblem, InvalidField, WeightsError
from triptych.text.clip_tokens import LENGTH, ids

__all__ = ["CONVERT", "Inversion", "Inversions", "load"]

CONVERT: Final = (
    "import torch, safetensors.torch; said = torch.load({old!r}, weights_only=True); "
    "words = list(said.get('string_to_param', said).values()); "
    "safetensors.torch.save_file({{'emb_params': words[0].detach().clone()}}, {new!r})"
)
"""The Python that makes a safetensors file of a pickle of one learned word."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Inversion:
    """A name, and the vectors (N, D) that it stands for in each of a model's towers."""

    name: str
    vectors: tuple[Tensor, ...]


def load(path: Path, widths: Sequence[int], name: str = "") -> Inversion:
    """A learned word for towers of these widths, in their order: CLIP ViT-L first where there are two.

    name: what stands for it in prompts; else the name that the file gives, else the file's. Raises FileProblem for a
    pickle and for what cannot be read, WeightsError for vectors that do not fit.
    """
    if path.suffix.lower() in _PICKLES:
        command = CONVERT.format(old=path.name, new=path.with_suffix(".safetensors").name)
        raise FileProblem(
            f"{path}: this is a pickle, and opening one may run a stranger's code; only safetensors are read. "
            f'If you trust it, convert it where it lies: python -c "{command}"'
        )
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FileProblem(f"{path}: no readable safetensors file ({error}).") from error
    ordered = [tensors[key] for key in sorted(tensors, reverse=True)]  # clip_l before clip_g
    vectors = tuple(tensor[None] if tensor.ndim == 1 else tensor for tensor in ordered)
    _check(path, vectors, widths)
    known = len(tensors) > 1 or tensors.keys() <= _KEYS
    return Inversion(name or (path.stem if known else next(iter(tensors))), vectors)


@final
class Inversions:
    """The learned words that a model's prompts may use. Their ids follow those of the towers' tables."""

    def __init__(self, inversions: Sequence[Inversion] = (), prefix: str = "") -> None:
        """prefix: what stands before every name in a prompt. Raises InvalidField for a name that is given twice."""
        self._vectors = [inversion.vectors for inversion in inversions]
        found: dict[str, tuple[int, ...]] = {}
        row = WORDS
        for inversion in inversions:
            name, count = (prefix + inversion.name).lower(), len(inversion.vectors[0])
            if name in found:
                raise InvalidField("embeddings", inversion.name, "each name once", "Give one of them another name.")
            found[name] = tuple(range(row, row + count))
            row += count
        longest_first = sorted(found, key=len, reverse=True)
        self._ids = [found[name] for name in longest_first]
        self._names = re.compile("|".join(map(_alone, longest_first)) or r"(?!)", re.IGNORECASE)

    def items(self, text: str) -> list[tuple[int, ...]]:
        """The ids of a text, each by itself, and those that a name stands for together."""
        found: list[tuple[int, ...]] = []
        start = 0
        for match in self._names.finditer(text):
            found += [(token,) for token in ids(text[start : match.start()])]
            found.append(self._ids[(match.lastindex or 1) - 1])
            start = match.end()
        return found + [(token,) for token in ids(text[start:])]

    def table(self, tower: int) -> Tensor | None:
        """(N, D) what follows the table of a tower, by its number; None if nothing does."""
        return torch.cat([vectors[tower] for vectors in self._vectors]) if self._vectors else None


_PICKLES = frozenset({".pt", ".pth", ".bin", ".ckpt"})
_KEYS = frozenset({"emb_params", "clip_l", "clip_g"})


def _alone(name: str) -> str:
    """A pattern, and a group, for a name that is not a part of a longer word."""
    before = r"(?<![^\W_])" if name[0].isalnum() else ""
    after = r"(?![^\W_])" if name[-1].isalnum() else ""
    return f"{before}({re.escape(name)}){after}"


def _check(path: Path, vectors: tuple[Tensor, ...], widths: Sequence[int]) -> None:
    shapes = [tuple(tensor.shape) for tensor in vectors]
    counts = {shape[0] for shape in shapes}
    fits = all(len(shape) == 2 and shape[1] == width for shape, width in zip(shapes, widths, strict=False))
    if not fits or len(shapes) != len(widths):
        wanted = " and ".join(f"(n, {width})" for width in widths)
        given = " and ".join(str(shape) for shape in shapes) or "none"
        raise WeightsError(f"{path}: vectors {given}, and this model takes {wanted}: it was made for another model.")
    if len(counts) != 1 or not 1 <= max(counts) <= LENGTH:
        raise WeightsError(f"{path}: {sorted(counts)} vectors; a word may have 1 to {LENGTH}, alike in every tower.")
