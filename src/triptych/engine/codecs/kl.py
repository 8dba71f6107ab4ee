"""The autoencoder of latent diffusion (arXiv:2112.10752): pictures to latents an eighth as wide, and back.

The encoder tells mean and deviation of a normal posterior, trained with a small Kullback-Leibler weight; the decoder
is fed a sample of it, or its mean. Submodules are named as the checkpoints that the authors published. Everything
runs in the memory order that convolutions like best (channels last), in the precision of the weights; norms and
softmax accumulate in float32. In float16 the decoder of SDXL overflows and its pictures are black: see `safe_dtype`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from triptych.engine.nets.attention import attention

__all__ = ["FLUX", "KL", "SD3", "SD15", "SDXL", "Setting", "activated", "safe_dtype"]


@final
@dataclass(frozen=True, slots=True)
class Setting:
    """How large an autoencoder is, and where its latents lie: latents = scale (what the encoder tells - shift).

    channels: of latents; widths: of the levels, each half as wide as the one before; blocks: a level of the encoder,
    the decoder has one more; mixed: whether 1x1 convolutions stand between encoder, latents and decoder; groups: of
    the norms.
    """

    channels: int
    scale: float
    shift: float = 0.0
    mixed: bool = True
    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: int = 2
    samples: int = 3
    groups: int = 32


SD15 = Setting(4, 0.18215)
SDXL = Setting(4, 0.13025)
SD3 = Setting(16, 1.5305, 0.0609, mixed=False)
FLUX = Setting(16, 0.3611, 0.1159, mixed=False)


def safe_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision for the weights of a KL codec where the rest of a model has this one: float32 for float16."""
    return torch.float32 if dtype == torch.float16 else dtype


@final
class KL(nn.Module):
    """Samples (B, 3, H, W) in [-1, 1] to latents (B, channels, H / 8, W / 8) of unit variance, and back."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting, self.channels = setting, setting.channels
        self.encoder, self.decoder = Encoder(setting), Decoder(setting)
        double = 2 * setting.channels
        self.quant_conv = nn.Conv2d(double, double, 1) if setting.mixed else None
        self.post_quant_conv = nn.Conv2d(setting.channels, setting.channels, 1) if setting.mixed else None

    @property
    def scale_factor(self) -> tuple[int, ...]:
        return (2 ** (len(self.setting.widths) - 1),) * 2

    def encode(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, channels, H / 8, W / 8) float32: the posterior's mean."""
        return self.moments(x)[0]

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> mean and standard deviation of the posterior, (B, channels, H / 8, W / 8) each."""
        return self.posterior(self.encoder(self.entering(x)))

    def decode(self, z: Tensor) -> Tensor:
        """(B, channels, h, w) -> (B, 3, 8 h, 8 w) float32."""
        out: Tensor = self.decoder(self.unscaled(z))
        return out.float()

    def entering(self, x: Tensor) -> Tensor:
        """(B, 3, H, W): what the encoder takes."""
        if any(n % factor for n, factor in zip(x.shape[2:], self.scale_factor, strict=True)):
            raise ValueError(f"{tuple(x.shape[2:])} samples: multiples of {self.scale_factor} allowed, pad or resize")
        return self._cast(x)

    def posterior(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 2 channels, h, w), what the encoder gives -> mean and standard deviation, (B, channels, h, w) each."""
        mixed = features if self.quant_conv is None else self.quant_conv(features)
        mean, log_variance = mixed.float().chunk(2, dim=1)
        std = torch.exp(0.5 * log_variance.clamp(-30, 20))
        return (mean - self.setting.shift) * self.setting.scale, std * self.setting.scale

    def unscaled(self, z: Tensor) -> Tensor:
        """(B, channels, h, w): what the decoder takes."""
        features = self._cast(z / self.setting.scale + self.setting.shift)
        return features if self.post_quant_conv is None else self.post_quant_conv(features)

    def _cast(self, x: Tensor) -> Tensor:
        weight = self.decoder.conv_out.weight
        if weight.dtype != safe_dtype(weight.dtype):
            raise ValueError(f"a KL codec in {weight.dtype} may overflow: float32 or bfloat16 allowed, see safe_dtype")
        return x.to(weight.dtype, memory_format=torch.channels_last)


class Encoder(nn.Module):
    """(B, 3, H, W) -> (B, 2 channels, H / 8, W / 8)."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        widths, groups = setting.widths, setting.groups
        self.conv_in = nn.Conv2d(setting.samples, widths[0], 3, padding=1)
        entered = (widths[0], *widths[:-1])
        self.down = nn.ModuleList(
            Level(_chain(before, width, setting.blocks), groups, downsample=number < len(widths) - 1)
            for number, (before, width) in enumerate(zip(entered, widths, strict=True))
        )
        self.mid = Middle(widths[-1], groups)
        self.norm_out = nn.GroupNorm(groups, widths[-1], 1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 2 * setting.channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        out: Tensor = self.conv_out(activated(self.norm_out, self.mid(x)))
        return out


class Decoder(nn.Module):
    """(B, channels, h, w) -> (B, 3, 8 h, 8 w). Levels are numbered from the finest, and run from the coarsest."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        widths, groups = setting.widths, setting.groups
        self.conv_in = nn.Conv2d(setting.channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], groups)
        entered = (*widths[1:], widths[-1])
        self.up = nn.ModuleList(
            Level(_chain(before, width, setting.blocks + 1), groups, upsample=number > 0)
            for number, (before, width) in enumerate(zip(entered, widths, strict=True))
        )
        self.norm_out = nn.GroupNorm(groups, widths[0], 1e-6)
        self.conv_out = nn.Conv2d(widths[0], setting.samples, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        out: Tensor = self.conv_out(activated(self.norm_out, x))
        return out


class Level(nn.Module):
    """Blocks of one resolution, and the way to the next."""

    def __init__(
        self, widths: Sequence[tuple[int, int]], groups: int, downsample: bool = False, upsample: bool = False
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(Residual(before, width, groups) for before, width in widths)
        self.downsample = Downsample(widths[-1][1]) if downsample else None
        self.upsample = Upsample(widths[-1][1]) if upsample else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        for resample in (self.downsample, self.upsample):
            x = x if resample is None else resample(x)
        return x


class Middle(nn.Module):
    """(B, C, H, W) -> (B, C, H, W), where every place sees every other."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.block_1 = Residual(width, width, groups)
        self.attn_1 = Attention(width, groups)
        self.block_2 = Residual(width, width, groups)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Residual(nn.Module):
    """(B, before, H, W) -> (B, width, H, W): two convolutions beside a skip."""

    def __init__(self, before: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, before, 1e-6), nn.Conv2d(before, width, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, width, 1e-6), nn.Conv2d(width, width, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(before, width, 1) if before != width else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(activated(self.norm1, x))
        out: Tensor = self.conv2(activated(self.norm2, h))
        return out.add_(self.skip(x))

    def skip(self, x: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, width, H, W)."""
        out: Tensor = x if self.nin_shortcut is None else self.nin_shortcut(x)
        return out


class Attention(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): every place asks every other, with one head."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = rearrange(self.norm(x), "b c h w -> b (h w) c")
        mixed = self.proj_out(attention(self.q(tokens), self.k(tokens), self.v(tokens), heads=1))
        out: Tensor = x + rearrange(mixed, "b (h w) c -> b c h w", h=x.shape[2])
        return out


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, C, H / 2, W / 2). Only the far edges are padded, as the published weights were trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """(B, C, H, W) -> (B, C, 2 H, 2 W): a 3x3 convolution of every pixel doubled along both axes.

    Of the doubled pixels a 3x3 window holds but 2x2 that differ, so each of the four pixels in a cell is a 2x2
    convolution of the small picture, with 4 / 9 of the products.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, padding: int = 1) -> Tensor:
        """padding: rows of zeros beyond either end; 0 where the first and last row of x are but neighbours."""
        batch, _, height, width = x.shape
        height += 2 * padding - 2
        shape = (batch, self.conv.out_channels, 2 * height, 2 * width)
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        kernels = self._kernels()
        for p, q in ((0, 0), (0, 1), (1, 0), (1, 1)):
            cell = F.conv2d(x, kernels[p, q], self.conv.bias, padding=(padding, 1))  # (B, C, H + 1, W + 1)
            out[:, :, p::2, q::2] = cell[:, :, p : p + height, q : q + width]
        return out

    def _kernels(self) -> Tensor:
        """(2, 2, C, C, 2, 2): which taps of the 3x3 kernel fall on the same small pixel, by the place in the cell."""
        kernel = self.conv.weight.float()
        taps = kernel.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
        cells: Tensor = torch.einsum("pti,quj,ocij->pqoctu", taps, taps, kernel)
        return cells.to(self.conv.weight.dtype)


def activated(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """SiLU of the normalised (arXiv:1803.08494), as it stands before every 3x3 convolution of a block."""
    return F.silu(norm(x), inplace=True)


def _chain(before: int, width: int, blocks: int) -> list[tuple[int, int]]:
    """What goes into and comes out of each block of a level."""
    return [(before, width), *[(width, width)] * (blocks - 1)]
