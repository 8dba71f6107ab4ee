"""What is trained: a codec that gives back its input, and a denoiser with the text tower that tells it what to draw."""

from collections.abc import Callable, Iterator
from dataclasses import replace
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
from triptych.engine.text.words import WordTower
from triptych.train.bank import NOTHING, Bank, Encoded
from triptych.train.pictures import Batch

__all__ = ["CodecTask", "DenoiserTask", "SketchTask"]

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
class SketchTask:
    """The tower alone, on latents encoded once: hundreds of times the speed of a denoiser."""

    def __init__(self, tower: WordTower, bank: Bank, tokenise: Tokenise, *, batch: int, drop: float) -> None:
        """drop: share of captions left empty."""
        self.modules, self._bank, self._tokenise, self._batch, self._drop = tower, bank, tokenise, batch, drop

    def batches(self, first: int) -> Iterator[Encoded]:
        return self._bank.batches(self._batch, first)

    def loss(self, batch: Encoded, generator: torch.Generator) -> Tensor:
        batch = emptied(batch, self._drop, generator)
        with torch.autocast("cpu", torch.bfloat16):
            cond = self.modules(*self._tokenise(batch.captions))
            return sketch_loss(self.modules, cond, batch)

    def show(self, path: Path) -> None:
        """Nothing to see yet."""


NAMING = 0.2  # weight of the cross-entropy beside the squared error


def sketch_loss(tower: WordTower, cond: Conditioning, batch: Encoded) -> Tensor:
    """E[x_0 | caption] by regression; and which things the caption names."""
    assert cond.concat is not None, "a word tower gives a sketch"
    error = F.mse_loss(cond.concat.float(), batch.x_0)
    return error + NAMING * naming_loss(tower, cond, batch)


def naming_loss(tower: WordTower, cond: Conditioning, batch: Encoded) -> Tensor:
    """The cross-entropy of which things the caption names."""
    assert cond.vector is not None, "a word tower gives a vector"
    scores = tower.sketch.scores(cond.vector).float()
    named = F.cross_entropy(scores.transpose(1, 2), batch.subjects, ignore_index=NOTHING, reduction="sum")
    return named / (batch.subjects != NOTHING).sum().clamp(min=1)


def emptied(batch: Encoded, share: float, generator: torch.Generator) -> Encoded:
    """The batch with a share of its captions left empty, for guidance (arXiv:2207.12598)."""
    dropped = torch.rand(len(batch.captions), generator=generator) < share
    captions = ["" if drop else text for text, drop in zip(batch.captions, dropped.tolist(), strict=True)]
    return Encoded(batch.x_0, captions, batch.subjects.masked_fill(dropped[:, None], NOTHING))


@final
class DenoiserTask:
    """Flow matching on encoded scenes: the tower and the network learn together."""

    def __init__(
        self,
        tower: WordTower,
        denoiser: NetworkDenoiser,
        bank: Bank,
        tokenise: Tokenise,
        *,
        batch: int,
        times: Callable[[int, torch.Generator], Tensor],
        drop: float,
        show: Callable[[Path], None],
    ) -> None:
        """times: (B, generator) -> (B,); drop: share of captions left empty, for guidance (arXiv:2207.12598)."""
        self.modules = nn.ModuleDict({"tower": tower, "network": denoiser})
        self._tower, self._denoiser, self._bank, self._batch = tower, denoiser, bank, batch
        self._tokenise, self._times, self._drop, self._show = tokenise, times, drop, show

    def batches(self, first: int) -> Iterator[Encoded]:
        return self._bank.batches(self._batch, first)

    def loss(self, batch: Encoded, generator: torch.Generator) -> Tensor:
        batch = emptied(batch, self._drop, generator)
        with torch.autocast("cpu", torch.bfloat16):
            cond: Conditioning = self._tower(*self._tokenise(batch.captions))
            sketched = sketch_loss(self._tower, cond, batch)
            told = replace(cond, concat=None if cond.concat is None else cond.concat.detach())
            eps = torch.randn(batch.x_0.shape, generator=generator)
            t = broadcast(self._times(len(eps), generator), batch.x_0)
            return self._denoiser.loss(batch.x_0, eps, t, told).mean() + sketched

    def show(self, path: Path) -> None:
        self._show(path)


def save_sheet(x: Tensor, path: Path, columns: int) -> None:
    """Samples (B, 3, H, W) in [-1, 1] as one picture, row by row."""
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    sheet = rearrange(pixels, "(rows columns) c h w -> (rows h) (columns w) c", columns=columns)
    Image.fromarray(sheet.numpy()).save(path)
