"""Layers that networks share, for latents of any rank: (B, C, *S)."""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CONV", "ResidualBlock", "TimeEmbedding", "normalised", "rms_normed", "sines", "zeroed"]

Layer = TypeVar("Layer", bound=nn.Module)

CONV: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def zeroed(layer: Layer) -> Layer:
    """The layer with all parameters at zero: a residual branch that starts as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def normalised(width: int) -> nn.GroupNorm:
    """Group normalisation with sixteen channels a group (arXiv:1803.08494)."""
    return nn.GroupNorm(max(1, width // 16), width)


def rms_normed(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """x (..., D) over its root mean square, times weight (D,) (arXiv:1910.07467).

    It is torch's own, which takes three to four times as long on CPUs.
    """
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return F.rms_norm(x, weight.shape, weight, eps)
    h = x.to(torch.promote_types(x.dtype, torch.float32), copy=True)
    h *= h.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return h.mul_(weight).to(x.dtype)


def sines(numbers: Tensor, frequencies: int = 128) -> Tensor:
    """(B,) to (B, 2 frequencies) float32: cosines, sines of geometric frequencies (arXiv:1706.03762)."""
    exponent = torch.arange(frequencies, device=numbers.device, dtype=torch.float32) / frequencies
    angle = numbers.float()[:, None] * torch.exp(-math.log(10_000) * exponent)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class TimeEmbedding(nn.Module):
    """(B,) timesteps in [0, 1000] to (B, width): their sines, then two layers."""

    def __init__(self, width: int, frequencies: int = 128) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.layers = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timestep: Tensor) -> Tensor:
        waves = sines(timestep, self.frequencies).to(self.layers[2].weight.dtype)  # type: ignore[arg-type]
        out: Tensor = self.layers(waves)
        return out


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip; the embedding scales and shifts between them (arXiv:2105.05233, section 3).

    rank: how many axes S has; embedding None: no conditioning, as in codecs.
    """

    def __init__(self, rank: int, width: int, embedding: int | None = None) -> None:
        super().__init__()
        conv = CONV[rank]
        self.norm_1, self.conv_1 = normalised(width), conv(width, width, 3, padding=1)
        self.norm_2, self.conv_2 = normalised(width), zeroed(conv(width, width, 3, padding=1))
        self.modulation = zeroed(nn.Linear(embedding, 2 * width)) if embedding else None
        self.activation = nn.SiLU()

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """x (B, width, *S), embedding (B, embedding) -> (B, width, *S)."""
        h = self.norm_2(self.conv_1(self.activation(self.norm_1(x))))
        if self.modulation is not None and embedding is not None:
            change = self.modulation(embedding)
            scale, shift = change.reshape(*change.shape, *[1] * (x.ndim - 2)).chunk(2, dim=1)
            h = h * (1 + scale) + shift
        out: Tensor = x + self.conv_2(self.activation(h))
        return out
