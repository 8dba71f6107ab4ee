"""A small convolutional autoencoder of any rank: patches are folded into channels, so no layer sees full resolution
but the last two.

Latents are normalised to zero mean and unit variance by running statistics, and the decoder is trained on latents
with a little noise added: the fixed-variance limit of a VAE (arXiv:1312.6114), which keeps the latent space smooth
without a KL weight to tune.
"""

import math
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.engine.nets.layers import CONV, ResidualBlock, normalised

__all__ = ["Folded"]


class Folded(nn.Module):
    """Samples (B, c, *samples) in [-1, 1] to latents (B, channels, *latents): fold x 2 samples per latent and axis.

    widths: (encoder fine, encoder coarse, decoder coarse, decoder fine); finish: channels at full resolution.
    """

    def __init__(
        self,
        rank: int,
        samples: int = 3,
        channels: int = 8,
        fold: int | Sequence[int] = 4,
        *,
        widths: Sequence[int] = (64, 128, 256, 128),
        blocks: Sequence[int] = (1, 2, 2, 3),
        finish: int = 16,
    ) -> None:
        super().__init__()
        conv = CONV[rank]
        self.rank, self.fold = rank, (fold,) * rank if isinstance(fold, int) else tuple(fold)
        self.channels, patch = channels, math.prod(self.fold)
        fine, coarse, decoder_coarse, decoder_fine = widths
        self.encoder = nn.Sequential(
            conv(samples * patch, fine, 3, padding=1),
            *(ResidualBlock(rank, fine) for _ in range(blocks[0])),
            conv(fine, coarse, 3, stride=2, padding=1),
            *(ResidualBlock(rank, coarse) for _ in range(blocks[1])),
            normalised(coarse),
            nn.SiLU(),
            conv(coarse, channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            conv(channels, decoder_coarse, 3, padding=1),
            *(ResidualBlock(rank, decoder_coarse) for _ in range(blocks[2])),
            nn.Upsample(scale_factor=2),
            conv(decoder_coarse, decoder_fine, 3, padding=1),
            *(ResidualBlock(rank, decoder_fine) for _ in range(blocks[3])),
            normalised(decoder_fine),
            nn.SiLU(),
            conv(decoder_fine, finish * patch, 3, padding=1),
        )
        self.smooth = conv(finish, finish, 3, padding=1)
        self.leave = conv(finish, samples, 3, padding=1)
        self.mean = nn.Buffer(torch.zeros(channels))
        self.std = nn.Buffer(torch.ones(channels))

    @property
    def scale_factor(self) -> tuple[int, ...]:
        return tuple(2 * size for size in self.fold)

    def features(self, x: Tensor) -> Tensor:
        """(B, c, *samples) -> (B, channels, *latents) before normalisation; each axis a multiple of 2 fold."""
        out: Tensor = self.encoder(fold(x.to(self.leave.weight.dtype), self.fold))
        return out

    def encode(self, x: Tensor) -> Tensor:
        return (self.features(x).float() - self._along(self.mean)) / self._along(self.std)

    def decode(self, z: Tensor) -> Tensor:
        fine = unfold(self.decoder(z.to(self.leave.weight.dtype)), self.fold)
        out: Tensor = self.leave(F.silu(fine + self.smooth(F.silu(fine))))
        return out.float()

    @torch.no_grad()
    def measure(self, features: Tensor, momentum: float) -> Self:
        """Moves the running mean and standard deviation towards these features (B, channels, *latents)."""
        axes = [0, *range(2, features.ndim)]
        self.mean.lerp_(features.float().mean(axes), momentum)
        self.std.lerp_(features.float().std(axes), momentum)
        return self

    def _along(self, statistic: Tensor) -> Tensor:
        return statistic.reshape(1, -1, *[1] * self.rank)


def fold(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """(B, c, *S) -> (B, c prod(sizes), *S / sizes): every patch of these sizes becomes channels."""
    batch, channels, *axes = x.shape
    split = x.reshape(batch, channels, *(n for a, size in zip(axes, sizes, strict=True) for n in (a // size, size)))
    inner, outer = [3 + 2 * i for i in range(len(axes))], [2 + 2 * i for i in range(len(axes))]
    whole = [axis // size for axis, size in zip(axes, sizes, strict=True)]
    return split.permute(0, 1, *inner, *outer).reshape(batch, -1, *whole)


def unfold(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """The inverse of `fold`."""
    batch, channels, *axes = x.shape
    rank = len(sizes)
    split = x.reshape(batch, channels // math.prod(sizes), *sizes, *axes)
    order = [n for i in range(rank) for n in (2 + rank + i, 2 + i)]
    return split.permute(0, 1, *order).reshape(
        batch, -1, *(axis * size for axis, size in zip(axes, sizes, strict=True))
    )
