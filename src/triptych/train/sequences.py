"""A network of single latents learns sequences: layers between the members are new, all others change a little."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from triptych.engine.adapt import adapt, changes
from triptych.engine.conditioning import Conditioning
from triptych.families.mini import Parts, in_length, in_sequence
from triptych.train.bank import Encoded

__all__ = ["Lengths", "Windows", "learned", "prepare"]

WHOLE = ("along", "place", "enter")  # parts of the network that are trained as they are
MEMORY = ("keys", "memories", "enter", "leave")  # parts of the sketch that stay


def prepare(parts: Parts, rank: int) -> None:
    """Freezes what stays: the codec, the memory, and of the network all but changes of this rank and what is new."""
    parts.codec.requires_grad_(False)
    for name, parameter in parts.tower.sketch.named_parameters():
        parameter.requires_grad_(name.split(".")[0] not in MEMORY)
    adapt(parts.network, rank, WHOLE)


def learned(modules: nn.Module) -> dict[str, Tensor]:
    """What training has changed, by the names that it has in these modules."""
    own = {
        name: p.detach() for name, p in modules.named_parameters() if p.requires_grad and "parametrizations" not in name
    }
    return own | changes(modules)


@final
@dataclass(frozen=True, slots=True)
class Windows:
    """A view of films: some members of each, and for some windows the first of them is shown to the network.

    strides: how far apart members are; each is as likely as the others. first: the share of windows whose first member
    is shown.
    """

    length: int
    strides: tuple[int, ...]
    rate: float  # members a second in the bank
    first: float

    def __call__(self, cond: Conditioning, batch: Encoded, generator: torch.Generator) -> tuple[Tensor, Conditioning]:
        """x_0 (B, C, T, *S) to (B, C, length, *S)."""
        assert batch.poses is not None, "a bank of what moves"
        x_0, poses, start, rate = self.taken(batch.x_0, batch.poses, generator)
        shown = torch.rand(len(x_0), generator=generator) < self.first
        return x_0, in_sequence(cond, rate, poses, x_0[:, :, 0], start, shown)

    def taken(self, x: Tensor, poses: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, C, T, *S) to (B, C, length, *S), the poses of those members, when each window starts (B,), in seconds,
        and its rate (B,)."""
        stride = self.strides[int(torch.randint(len(self.strides), (), generator=generator))]
        room = x.shape[2] - (self.length - 1) * stride
        starts = torch.randint(room, (len(x),), generator=generator)
        places = starts[:, None] + stride * torch.arange(self.length)
        each = torch.arange(len(x))[:, None]
        return (
            x[each, :, places].transpose(1, 2),
            poses[each, places],
            starts / self.rate,
            torch.full((len(x),), self.rate / stride),
        )


@final
@dataclass(frozen=True, slots=True)
class Lengths:
    """A view of sounds: the beginning of each, as long as one of `lengths`, each as likely as it is often there."""

    lengths: tuple[int, ...]
    rate: float  # latents a second

    def __call__(self, cond: Conditioning, batch: Encoded, generator: torch.Generator) -> tuple[Tensor, Conditioning]:
        """x_0 (B, C, T) to (B, C, one of lengths)."""
        length = self.lengths[int(torch.randint(len(self.lengths), (), generator=generator))]
        return batch.x_0[..., :length], in_length(cond, length, self.rate)
