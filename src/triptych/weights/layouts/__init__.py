"""Where our tensors lie in other people's files: one module a kind of network, one function a layout.

Our networks are named as the checkpoints that their authors published. A layout tells for each of our names which
tensors of a file it is made of, without reading any: `inspect` and LoRA need the names alone.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor

__all__ = ["Layout", "Source", "gathered", "same"]


def same(tensor: Tensor) -> Tensor:
    """As it is."""
    return tensor


@final
@dataclass(frozen=True, slots=True)
class Source:
    """What one of our tensors is made of: names in the file, and what joins or cuts them."""

    names: tuple[str, ...]
    make: Callable[..., Tensor] = same


Layout = Callable[[Iterable[str]], Mapping[str, Source]]
"""Our names -> where each comes from."""


def gathered(
    sources: Mapping[str, Source],
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], Tensor],
    keep: Callable[[Tensor], Tensor] = same,
) -> dict[str, Tensor]:
    """Our tensors, read one by one. A 1x1 convolution and a linear layer hold the same numbers, and become each other.

    shapes: of ours, by name; read: a tensor of the file by its name; keep: what of a tensor is kept, its conversion.
    """
    found: dict[str, Tensor] = {}
    for name, source in sources.items():
        tensor = source.make(*(read(part) for part in source.names))
        wanted = shapes[name]
        if tuple(tensor.shape) != wanted and _squeezed(tensor.shape) == _squeezed(wanted):
            tensor = tensor.reshape(wanted)
        found[name] = keep(tensor)
    return found


def _squeezed(shape: Iterable[int]) -> tuple[int, ...]:
    lengths = list(shape)
    while lengths and lengths[-1] == 1:
        lengths.pop()
    return tuple(lengths)
