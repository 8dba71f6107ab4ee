"""A network of single latents learns sequences: layers between the members are new, all others change a little."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from triptych.engine.adapt import adapt, changes
from triptych.engine.conditioning import Conditioning
from triptych.engine.loops import Loops
from triptych.engine.pitch import Pitch
from triptych.families.mini import Parts, in_length, in_sequence
from triptych.train.bank import Encoded

__all__ = ["Lengths", "Windows", "alone", "learned", "prepare"]

WHOLE = ("along", "place", "enter")  # parts of the network that are trained as they are
TELLING = ("enter", "layers", "norm")  # parts of the tower that learn new words


def prepare(parts: Parts, told: int, drawn: int) -> None:
    """Freezes what stays: the codec, the sketch, and all but what is new and changes of rank `told` in the tower,
    `drawn` in the network."""
    parts.codec.requires_grad_(False)
    parts.tower.sketch.requires_grad_(False)
    for name in TELLING:
        adapt(getattr(parts.tower, name), told)
    adapt(parts.network, drawn, WHOLE)


@contextmanager
def alone(whole: nn.Module, part: nn.Module) -> Iterator[None]:
    """Within, nothing of the whole is trained but this part."""
    own = set(part.parameters())
    resting = [p for p in whole.parameters() if p.requires_grad and p not in own]
    for parameter in resting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in resting:
            parameter.requires_grad_()


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
    loops: Loops | None = None  # those of the tower that gives the conditioning

    def __call__(self, cond: Conditioning, batch: Encoded, generator: torch.Generator) -> tuple[Tensor, Conditioning]:
        """x_0 (B, C, T, *S) to (B, C, length, *S)."""
        assert batch.poses is not None, "a bank of what moves"
        assert cond.vector is not None, "a word tower gives a vector"
        x_0, poses, start, rate = self.taken(batch.x_0, batch.poses, generator)
        shown = torch.rand(len(x_0), generator=generator) < self.first
        seconds = start[:, None] + torch.arange(self.length) / rate[:, None]
        with torch.no_grad():
            own = None if self.loops is None else self.loops(cond.vector, seconds)
        return x_0, in_sequence(cond, rate, poses, own, x_0[:, :, 0], start, shown)

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
    rows: int  # of a latent
    pitch: Pitch  # that of the tower that gives the conditioning
    where: Tensor  # (NOTES, bands) the partials of notes lie

    def __call__(self, cond: Conditioning, batch: Encoded, generator: torch.Generator) -> tuple[Tensor, Conditioning]:
        """x_0 (B, C, T) to (B, C, one of lengths)."""
        length = self.lengths[int(torch.randint(len(self.lengths), (), generator=generator))]
        assert batch.pulses is not None, "a bank of sounds"
        assert cond.tokens is not None, "a word tower gives tokens"
        assert cond.mask is not None, "a word tower gives a mask"
        with torch.no_grad():
            likely = self.pitch.lie(cond.tokens, cond.mask, self.where)
        return batch.x_0[..., :length], in_length(cond, length, self.rate, batch.pulses, likely, self.rows)
