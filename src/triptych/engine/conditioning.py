"""What the network is told, by four routes and named scalars.

Attended tokens, a vector that joins the time embedding, channels stacked under x_t, latents beside x_t in the
sequence. Whatever a prompt, a picture or a sound has to say to a network goes by one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import final

import torch
from torch import Tensor

__all__ = ["Conditioning", "concatenate"]

EMPTY: Mapping[str, Tensor] = MappingProxyType({})
NEAR = 1e-6  # times that are the same but for rounding


@final
@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """Everything is optional; every tensor starts with the batch B. Compared by identity, so that a network may
    cache what it computes from one."""

    tokens: Tensor | None = None  # (B, L, D)   attended to
    mask: Tensor | None = None  # (B, L)      True where tokens are real
    vector: Tensor | None = None  # (B, D)      joins the time embedding
    concat: Tensor | None = None  # (B, C', *S) stacked under x_t
    references: tuple[Tensor, ...] = ()  # (B, C, *S') each, beside x_t in the sequence
    scalars: Mapping[str, Tensor] = field(default_factory=lambda: EMPTY)  # (B,) each: fps, seconds, embedded guidance
    later: tuple[tuple[float, "Conditioning"], ...] = ()  # from a time down, this instead; in falling order of times

    def at(self, t: Tensor) -> "Conditioning":
        """What is told at time t, of any shape; its first element counts."""
        if not self.later:
            return self
        now = float(t.flatten()[0]) - NEAR
        told = [cond for time, cond in self.later if now <= time]
        return told[-1] if told else self


def concatenate(first: Conditioning, second: Conditioning) -> Conditioning | None:
    """Both along the batch, (2B, ...), or None where their routes or shapes differ and two calls are needed.

    So do those that change at other times; where they change at the same, what comes later is joined too.
    """
    later = _joined(first.later, second.later)
    if later is None:
        return None
    pairs = [
        (first.tokens, second.tokens),
        (first.mask, second.mask),
        (first.vector, second.vector),
        (first.concat, second.concat),
        *zip(first.references, second.references, strict=False),
        *((first.scalars[name], second.scalars.get(name)) for name in first.scalars),
    ]
    same_routes = len(first.references) == len(second.references) and first.scalars.keys() == second.scalars.keys()
    if not same_routes or not all(_stackable(a, b) for a, b in pairs):
        return None
    tokens, mask, vector, concat, *rest = (None if a is None or b is None else torch.cat([a, b]) for a, b in pairs)
    stacked = [tensor for tensor in rest if tensor is not None]
    references = tuple(stacked[: len(first.references)])
    scalars = dict(zip(first.scalars, stacked[len(references) :], strict=True))
    return Conditioning(tokens, mask, vector, concat, references, scalars, later)


Later = tuple[tuple[float, Conditioning], ...]


def _joined(first: Later, second: Later) -> Later | None:
    if [time for time, _ in first] != [time for time, _ in second]:
        return None
    both = [(time, concatenate(a, b)) for (time, a), (_, b) in zip(first, second, strict=True)]
    found = tuple((time, cond) for time, cond in both if cond is not None)
    return found if len(found) == len(both) else None


def _stackable(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
