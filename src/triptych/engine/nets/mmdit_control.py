"""ControlNet (arXiv:2302.05543) beside the transformer of Stable Diffusion 3: fewer blocks, of the same make.

Its hint is a latent, as the codec makes it of a sample, of some with channels more. What each of its blocks leaves goes
through a layer that begins as nothing, and is added to the network's stream of places after as many blocks as the
network has for each of its own. There are those that see tokens as the network does, and those that see none and start
from the network's own embedding of x_t.

Modules bear the names of the network's; `pos_embed_input` and `controlnet_blocks` are those of the published files.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.nets.controlnet import Watching
from triptych.engine.nets.kept import Kept
from triptych.engine.nets.layers import zeroed
from triptych.engine.nets.mmdit import (
    FREQUENCIES,
    SD3_MEDIUM,
    SD35_LARGE,
    Block,
    Embedder,
    MMDiT,
    Patches,
    Shape,
    cropped,
    positions,
    waves,
)

__all__ = ["SD3_CONTROL", "SD35_LARGE_CONTROL", "Beside", "ControlShape", "ControlTransformer"]


@final
@dataclass(frozen=True, slots=True)
class ControlShape:
    """All numbers of one ControlNet.

    joint: whether it sees tokens, and x_t by an embedding of its own; else it sees no tokens and the network's
    embedding. silent: whether it is told zeros in place of the conditioning's vector.
    """

    trunk: Shape
    hint: int = 16  # channels
    joint: bool = True
    silent: bool = True


# As InstantX and Stability published them; of those like the former, depth and hint differ from file to file.
SD3_CONTROL = ControlShape(replace(SD3_MEDIUM, depth=6))
SD35_LARGE_CONTROL = ControlShape(replace(SD35_LARGE, depth=19, normed=False), joint=False, silent=False)


class ControlTransformer(nn.Module):
    """What a hint changes after each of as many blocks as it has."""

    def __init__(self, shape: ControlShape) -> None:
        super().__init__()
        self.shape, trunk = shape, shape.trunk
        self.pos_embed_input = zeroed(Patches(shape.hint, trunk.width))
        self.t_embedder = Embedder(2 * FREQUENCIES, trunk.width)
        self.y_embedder = Embedder(trunk.vector, trunk.width)
        if shape.joint:
            self.x_embedder = Patches(trunk.channels, trunk.width)
            self.context_embedder = nn.Linear(trunk.context, trunk.width)
            self.pos_embed: Tensor
            self.register_buffer("pos_embed", positions(trunk.side, trunk.width))
        self.joint_blocks = nn.ModuleList(
            Block(trunk, joint=shape.joint, dual=index < trunk.dual) for index in range(trunk.depth)
        )
        self.controlnet_blocks = nn.ModuleList(zeroed(nn.Linear(trunk.width, trunk.width)) for _ in range(trunk.depth))
        self._words, self._vector = Kept(), Kept()

    def embed(self, hint: Tensor) -> Tensor:
        """Hints (B, C, H, W) -> (B, H W / 4, width)."""
        embedded: Tensor = self.pos_embed_input(hint.to(self.pos_embed_input.proj.weight.dtype))
        return embedded

    def entered(self, x: Tensor, network: MMDiT) -> Tensor:
        """x (B, C, H, W) beside this network -> (B, H W / 4, width), as `forward` takes it."""
        if not self.shape.joint:
            return network.entered(x)
        table = cropped(self.pos_embed, x.shape[2:])
        h: Tensor = self.x_embedder(x.to(table.dtype)) + table
        return h

    def forward(self, h: Tensor, timestep: Tensor, cond: Conditioning, hint: Tensor) -> Iterator[Tensor]:
        """h (B, N, width) that entered, timestep (B,) in [0, 1000], an embedded hint of the same shape as h -> what is
        to be added after each of its blocks, (B, N, width), computed as it is asked for."""
        assert cond.vector is not None, "this network takes a vector"
        vector, words = cond.vector, None
        if self.shape.silent:
            said = self.y_embedder(h.new_zeros(1, vector.shape[1]))
        else:
            said = self._vector(self.y_embedder, vector, h.dtype)
        if self.shape.joint:
            assert cond.tokens is not None, "this network attends to tokens"
            words = self._words(self.context_embedder, cond.tokens, h.dtype)
        embedding = F.silu(self.t_embedder(waves(timestep, h.dtype)) + said)
        h = h + hint
        for block, change in zip(self.joint_blocks, self.controlnet_blocks, strict=True):
            h, words = block(h, words, embedding, cond.mask)
            yield change(h)


@final
class Beside(Watching):
    """A ControlNet beside its network: what each block changes is added after its share of the network's blocks."""

    def __init__(self, control: ControlTransformer, network: MMDiT) -> None:
        super().__init__()
        self.control = control
        self._network = (network,)  # which is not a part of this module

    def embed(self, hint: Tensor) -> Tensor:
        """Hints (B, C, H, W), latents in the units that the ControlNet was trained with -> (B, H W / 4, width)."""
        return self.control.embed(hint)

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning, hint: Tensor) -> Iterator[Tensor]:
        """x (B, C, H, W), timestep (B,) in [0, 1000], an embedded hint -> `control` as `MMDiT` takes it: after each of
        its blocks but the last."""
        [network] = self._network
        depth = len(network.joint_blocks)
        changes = enumerate(self.control(self.control.entered(x, network), timestep, cond, hint))
        place = -1
        for index in range(depth - 1):
            while place < index * self.control.shape.trunk.depth // depth:
                place, change = next(changes)
            yield change
