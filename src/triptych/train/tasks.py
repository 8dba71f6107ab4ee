"""What is trained: a codec that gives back its input, and a denoiser with the text tower that tells it what to draw."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from triptych.engine.codecs.folded import Folded
from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import NetworkDenoiser, broadcast
from triptych.train.pictures import Batch

__all__ = ["CodecTask", "DenoiserTask"]

Tokenise = Callable[[list[str]], tuple[Tensor, Tensor]]  # captions -> ids (B, L), mask (B, L)


@final
class CodecTask:
    """Reconstruction of random crops: absolute error of values and of neighbour differences, at two scales.

    Differences weigh edges as much as areas, which keeps lines crisp without an adversary.
    """

    def __init__(self, codec: Folded, batches: Callable[[int], Iterator[Batch]], *, crop: int, noise: float) -> None:
        """crop: pixels a side; noise: standard deviation added to unit-variance latents before decoding."""
        self.codec, self._batches, self.crop, self.noise = codec, batches, crop, noise

    @property
    def modules(self) -> nn.Module:
        return self.codec

    def batches(self, first: int) -> Iterator[Batch]:
        return self._batches(first)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        x = self._crop(batch.samples, generator).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):  # bf16 products are 2.5 times as fast as fp32 on AVX-512 BF16
            features = self.codec.features(x).float()
            self.codec.measure(features.detach(), 0.01)
            axes = [0, *range(2, features.ndim)]
            z = (features - features.mean(axes, keepdim=True)) / (features.std(axes, keepdim=True) + 1e-5)
            z = z + self.noise * torch.randn(z.shape, generator=generator)
            y = self.codec.decode(z)
        return sum((_difference(F.avg_pool2d(x, n), F.avg_pool2d(y, n)) for n in (1, 4)), start=x.new_zeros(()))

    def _crop(self, x: Tensor, generator: torch.Generator) -> Tensor:
        top, left = torch.randint(0, x.shape[-1] - self.crop + 1, (2,), generator=generator).tolist()
        return x[..., top : top + self.crop, left : left + self.crop]

    @torch.inference_mode()
    def show(self, path: Path) -> None:
        x = next(self._batches(1_000_000)).samples[:32]
        y = self.codec.decode(self.codec.encode(x))
        save_sheet(torch.stack([x, y], 1).flatten(0, 1), path, columns=8)


def _difference(x: Tensor, y: Tensor) -> Tensor:
    across = (x.diff(dim=-1) - y.diff(dim=-1)).abs().mean()
    down = (x.diff(dim=-2) - y.diff(dim=-2)).abs().mean()
    return (x - y).abs().mean() + (x - y).square().mean() + across + down


@final
class DenoiserTask:
    """Flow matching in the codec's latents: the tower and the network learn together."""

    def __init__(
        self,
        tower: nn.Module,
        denoiser: NetworkDenoiser,
        codec: Folded,
        batches: Callable[[int], Iterator[Batch]],
        tokenise: Tokenise,
        *,
        times: Callable[[int, torch.Generator], Tensor],
        drop: float,
        show: Callable[[Path], None],
    ) -> None:
        """times: (B, generator) -> (B,); drop: share of captions left empty, for guidance (arXiv:2207.12598)."""
        self.modules = nn.ModuleDict({"tower": tower, "network": denoiser})
        self._tower, self._denoiser, self._codec, self._batches = tower, denoiser, codec, batches
        self._tokenise, self._times, self._drop, self._show = tokenise, times, drop, show

    def batches(self, first: int) -> Iterator[Batch]:
        return self._batches(first)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        count = len(batch.captions)
        dropped = (torch.rand(count, generator=generator) < self._drop).tolist()
        texts = ["" if drop else text for text, drop in zip(batch.captions, dropped, strict=True)]
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                samples = batch.samples.contiguous(memory_format=torch.channels_last)
                x_0 = self._codec.encode(samples)
            cond: Conditioning = self._tower(*self._tokenise(texts))
            eps = torch.randn(x_0.shape, generator=generator)
            t = broadcast(self._times(count, generator), x_0)
            return self._denoiser.loss(x_0, eps, t, cond).mean()

    def show(self, path: Path) -> None:
        self._show(path)


def save_sheet(x: Tensor, path: Path, columns: int) -> None:
    """Samples (B, 3, H, W) in [-1, 1] as one picture, row by row."""
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    sheet = rearrange(pixels, "(rows columns) c h w -> (rows h) (columns w) c", columns=columns)
    Image.fromarray(sheet.numpy()).save(path)
