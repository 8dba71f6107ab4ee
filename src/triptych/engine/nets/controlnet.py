"""ControlNet (arXiv:2302.05543): a copy of the U-Net's way down that sees a hint, and adds to what the way down left.

The hint has the size of the samples. It is embedded at the size of the latents, once; the rest depends on x_t and time.
Convolutions that begin as nothing let the copy be trained without harm to the U-Net, which stays as it is. Modules bear
the names of the published checkpoints.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Protocol, final

import torch
from torch import Tensor, nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.nets.fast import Inner
from triptych.engine.nets.layers import zeroed
from triptych.engine.nets.ldm import Shape, channels_last, descend, descent, embedded, embedders, middle

__all__ = ["Control", "ControlNet", "Controlled", "Open", "Watching"]

HINT_CHANNELS = 3
HINT_WIDTHS = (16, 16, 32, 32, 96, 96, 256)  # the resolution is halved where the width grows


class Watching(nn.Module, ABC):
    """A network beside another that sees a hint, and tells what changes at each place of the other."""

    @abstractmethod
    def embed(self, hint: Tensor) -> Tensor:
        """A hint as `forward` takes it: what does not depend on x_t and time is computed here, once."""

    @abstractmethod
    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning, hint: Tensor) -> Iterator[Tensor]:
        """x (B, C, H, W), timestep (B,) in [0, 1000], an embedded hint -> `control` as the other network takes it."""


class Open(Protocol):
    """A network that can be changed from beside."""

    def __call__(self, x: Tensor, timestep: Tensor, cond: Conditioning, control: Iterable[Tensor] = ()) -> Tensor:
        """What it says of x, with `control` added at its places."""
        ...

    def around(
        self, inner: Inner, x: Tensor, timestep: Tensor, cond: Conditioning, control: Iterable[Tensor] = ()
    ) -> Tensor:
        """The same, its deep part going through `inner`."""
        ...


class ControlNet(Watching):
    """What a hint changes at each place of the U-Net of the same shape.

    shape.in_channels is that of x_t alone: what is stacked under it is for the U-Net. The middle may be shallower.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.time_embed, self.label_emb = embedders(shape)
        self.input_hint_block = _hint_layers(shape.width)
        self.input_blocks, widths = descent(shape)
        self.zero_convs = nn.ModuleList(nn.Sequential(zeroed(nn.Conv2d(width, width, 1))) for width in widths)
        self.middle_block = middle(shape)
        self.middle_block_out = nn.Sequential(zeroed(nn.Conv2d(widths[-1], widths[-1], 1)))

    def embed(self, hint: Tensor) -> Tensor:
        """Hints (B, 3, 8 H, 8 W), each channel in [0, 1] -> (B, width, H, W)."""
        embedded_hint: Tensor = self.input_hint_block(channels_last(hint, self.input_blocks))
        return embedded_hint

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning, hint: Tensor) -> Iterator[Tensor]:
        """x (B, C, H, W), timestep (B,) in [0, 1000], an embedded hint -> `control` as `LatentUNet` takes it.

        Each is computed as it is asked for.
        """
        x = channels_last(x, self.input_blocks)
        embedding = embedded(self.time_embed, self.label_emb, timestep, cond, x.dtype)
        left = descend(self.input_blocks, self.input_blocks[0](x) + hint, embedding, cond)
        for change, h in zip(self.zero_convs, left, strict=True):
            yield change(h)
        yield self.middle_block_out(self.middle_block(h, embedding, cond))


@final
@dataclass(frozen=True, slots=True, eq=False)
class Control:
    """One ControlNet at work: hint as `net.embed` takes it; start and stop are shares of the walk from noise, in
    timesteps."""

    net: Watching
    hint: Tensor
    scale: float = 1.0
    start: float = 0.0
    stop: float = 1.0


@final
class Controlled(nn.Module):
    """A network with ControlNets beside it, as one network. What they change is added up."""

    def __init__(self, network: Open, controls: Sequence[Control]) -> None:
        super().__init__()
        self.network, self.controls = network, tuple(controls)
        self.nets = nn.ModuleList(control.net for control in controls)
        self._hints: dict[Control, Tensor] = {}

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        """x (B, C, H, W), timestep (B,): 1000 is noise -> what the network says of it.

        B is a multiple of the number of hints: they are repeated for each of the conditionings that share a batch.
        """
        return self.network(x, timestep, cond, self._summed(x, timestep, cond))

    def around(self, inner: Inner, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        """forward, where the deep part of the network, and what ControlNets change there, goes through `inner`."""
        return self.network.around(inner, x, timestep, cond, self._summed(x, timestep, cond))

    def _summed(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Iterator[Tensor]:
        """What those that are at work now change at each place, computed as it is asked for."""
        walked = 1 - float(timestep.max()) / 1000
        changes = [
            self._changes(control, x, timestep, cond)
            for control in self.controls
            if control.start <= walked <= control.stop
        ]
        places = ([change for change in place if change is not None] for place in zip_longest(*changes))
        return (sum(there[1:], there[0]) for there in places)

    def _changes(self, control: Control, x: Tensor, timestep: Tensor, cond: Conditioning) -> Iterator[Tensor]:
        for change in control.net(x, timestep, cond, self._hint(control, len(x))):
            yield change * control.scale

    def _hint(self, control: Control, batch: int) -> Tensor:
        """(batch, ...): embedded at first use, when the network is where it will run."""
        if control not in self._hints:
            with torch.no_grad():
                self._hints[control] = control.net.embed(control.hint)
        hint = self._hints[control]
        return torch.cat([hint] * (batch // len(hint)))


def _hint_layers(width: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(HINT_CHANNELS, HINT_WIDTHS[0], 3, padding=1), nn.SiLU(inplace=True)]
    for narrow, wide in pairwise(HINT_WIDTHS):
        layers.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=1 if narrow == wide else 2))
        layers.append(nn.SiLU(inplace=True))
    return nn.Sequential(*layers, zeroed(nn.Conv2d(HINT_WIDTHS[-1], width, 3, padding=1)))
