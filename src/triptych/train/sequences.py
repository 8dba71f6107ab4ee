"""A network of single latents learns sequences: layers between the members are new, all others change a little."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from triptych.engine.adapt import adapt, changes
from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import NetworkDenoiser, broadcast
from triptych.engine.text.words import WordTower
from triptych.families.mini import Parts, in_sequence
from triptych.train.bank import Bank, Encoded
from triptych.train.tasks import NAMING, Tokenise, emptied, naming_loss

__all__ = ["SequenceTask", "Window", "learned", "prepare"]

WHOLE = ("along", "place", "enter")  # parts of the network that are trained as they are
MEMORY = ("keys", "memories", "enter", "leave")  # parts of the sketch that stay


def prepare(parts: Parts, rank: int) -> None:
    """Freezes what stays: the codec, the memory, and of the network all but changes of this rank and what is new."""
    parts.codec.requires_grad_(False)
    for name, parameter in parts.tower.sketch.named_parameters():
        parameter.requires_grad_(name.split(".")[0] not in MEMORY)
    adapt(parts.network, rank, WHOLE)


def learned(parts: Parts) -> dict[str, Tensor]:
    """What training has changed, by the names that `mini.load` knows."""
    modules = nn.ModuleDict({"tower": parts.tower, "network": parts.network})
    own = {
        name: p.detach() for name, p in modules.named_parameters() if p.requires_grad and "parametrizations" not in name
    }
    return own | changes(modules)


@final
@dataclass(frozen=True, slots=True)
class Window:
    """How many members are trained on at a time, and how far apart: each stride is as likely as the others."""

    length: int
    strides: tuple[int, ...]
    rate: float  # members a second in the bank

    def __call__(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, T, *S) to (B, C, length, *S), when each window starts (B,), in seconds, and its rate (B,)."""
        stride = self.strides[int(torch.randint(len(self.strides), (), generator=generator))]
        room = x.shape[2] - (self.length - 1) * stride
        starts = torch.randint(room, (len(x),), generator=generator)
        taken = starts[:, None] + stride * torch.arange(self.length)
        windows = x[torch.arange(len(x))[:, None], :, taken].transpose(1, 2)
        return windows, starts / self.rate, torch.full((len(x),), self.rate / stride)


@final
class SequenceTask:
    """Flow matching on windows of encoded films; some are shown their first member."""

    def __init__(
        self,
        tower: WordTower,
        denoiser: NetworkDenoiser,
        bank: Bank,
        tokenise: Tokenise,
        *,
        batch: int,
        window: Window,
        times: Callable[[int, torch.Generator], Tensor],
        drop: float,
        first: float,
        show: Callable[[Path], None],
    ) -> None:
        """drop: share of captions left empty; first: share of windows whose first member is shown."""
        self.modules = nn.ModuleDict({"tower": tower, "network": denoiser})
        self._tower, self._denoiser, self._bank, self._batch, self._tokenise = tower, denoiser, bank, batch, tokenise
        self._window, self._times, self._drop, self._first, self._show = window, times, drop, first, show

    def batches(self, first: int) -> Iterator[Encoded]:
        return self._bank.batches(self._batch, first)

    def loss(self, batch: Encoded, generator: torch.Generator) -> Tensor:
        batch = emptied(batch, self._drop, generator)
        x_0, start, rate = self._window(batch.x_0, generator)
        with torch.autocast("cpu", torch.bfloat16):
            cond: Conditioning = self._tower(*self._tokenise(batch.captions))
            named = NAMING * naming_loss(self._tower, cond, batch)
            shown = torch.rand(len(x_0), generator=generator) < self._first
            told = in_sequence(cond, rate, x_0[:, :, 0], start, shown)
            eps = torch.randn(x_0.shape, generator=generator)
            t = broadcast(self._times(len(eps), generator), x_0)
            return self._denoiser.loss(x_0, eps, t, told).mean() + named

    def show(self, path: Path) -> None:
        self._show(path)
