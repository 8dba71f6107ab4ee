"""What is trained: a codec that gives back its input, and a denoiser with the text tower that tells it what to draw."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from triptych.engine.codecs.folded import Folded
from triptych.engine.codecs.spectral import Spectral
from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import NetworkDenoiser, broadcast
from triptych.engine.pitch import SEMITONES, Pitch
from triptych.engine.pulse import Pulse
from triptych.engine.text.words import WordTower
from triptych.families.mini import STEP
from triptych.train.bank import NOTHING, Bank, Encoded, slots
from triptych.train.batches import Batch

__all__ = ["CodecTask", "CourseTask", "DecoderTask", "DenoiserTask", "SketchTask", "SpectralTask", "View", "whole"]

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
            y = _through(self.codec, x, self.noise, generator)
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
class SpectralTask:
    """Reconstruction of the spectra of parts of waves: their own error, as `CodecTask` has it, and that of the square
    roots of magnitudes, which weighs what is loud."""

    def __init__(self, codec: Spectral, batches: Callable[[int], Iterator[Batch]], *, parts: int, noise: float) -> None:
        """parts: how many each example is cut into; noise: added to unit-variance latents before decoding."""
        self.modules, self._batches, self._parts, self._noise = codec, batches, parts, noise

    def batches(self, first: int) -> Iterator[Batch]:
        return self._batches(first)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        x = cut(self.modules, batch, self._parts)
        with torch.autocast("cpu", torch.bfloat16):
            y = _through(self.modules.picture, x, self._noise, generator)
        return heard_difference(x, y)

    def show(self, path: Path) -> None:
        """A sheet of spectrograms: each as it was, and under it as it came back."""
        show_spectra(self.modules, next(self._batches(1_000_000)).samples[:6], path)


@final
class DecoderTask:
    """The decoder of a codec of waves alone: its latents stay what they are, whatever was trained on them."""

    def __init__(self, codec: Spectral, batches: Callable[[int], Iterator[Batch]], *, parts: int, noise: float) -> None:
        """As `SpectralTask` takes them."""
        self._codec, self._batches, self._parts, self._noise = codec, batches, parts, noise
        self.modules = nn.ModuleList([codec.picture.decoder, codec.picture.smooth, codec.picture.leave])
        self.modules.requires_grad_()

    def batches(self, first: int) -> Iterator[Batch]:
        return self._batches(first)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        x = cut(self._codec, batch, self._parts)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                z = self._codec.picture.encode(x)
            y = self._codec.picture.decode(z + self._noise * torch.randn(z.shape, generator=generator))
        return heard_difference(x, y)

    def show(self, path: Path) -> None:
        """A sheet of spectrograms: each as it was, and under it as it came back."""
        show_spectra(self._codec, next(self._batches(1_000_000)).samples[:6], path)


def cut(codec: Spectral, batch: Batch, parts: int) -> Tensor:
    """The spectra of parts of waves, so many of each."""
    waves = rearrange(batch.samples, "b 1 (parts n) -> (b parts) 1 n", parts=parts)
    return codec.spectrum(waves).contiguous(memory_format=torch.channels_last)


def heard_difference(x: Tensor, y: Tensor) -> Tensor:
    """Of two spectra."""
    return _difference(x, y) + LOUD * (torch.exp(HALVED * x) - torch.exp(HALVED * y)).abs().mean()


def show_spectra(codec: Spectral, x: Tensor, path: Path) -> None:
    """Waves (B, 1, N) as they are, and under each as it comes back."""
    with torch.inference_mode():
        sheet = torch.cat([codec.spectrum(x), codec.restored(codec.encode(x))])
    save_sheet(upright(sheet), path, columns=len(x))


def _through(codec: Folded, x: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """x, encoded and decoded again with noise on its latents; the codec's statistics follow."""
    features = codec.features(x).float()
    codec.measure(features.detach(), 0.01)
    axes = [0, *range(2, features.ndim)]
    z = (features - features.mean(axes, keepdim=True)) / (features.std(axes, keepdim=True) + 1e-5)
    decoded: Tensor = codec.decode(z + noise * torch.randn(z.shape, generator=generator))
    return decoded


def upright(spectrum: Tensor) -> Tensor:
    """Spectra (B, 1, bands, frames) as pictures (B, 3, bands, frames), low notes below."""
    return spectrum.flip(2).expand(-1, 3, -1, -1)


HALVED = (
    1.5  # of the span of a spectrum's logarithm: e to this power is the square root of a magnitude, but for a factor
)
LOUD = 0.3  # weight of square roots


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
    """E[x_0 | caption] by regression, as far as the sketch reaches; and which things the caption names; and where the
    tower foretells them, the pulse and the notes."""
    assert cond.concat is not None, "a word tower gives a sketch"
    sketch, x_0 = cond.concat.float(), batch.x_0
    if tower.pulse is not None:
        x_0 = F.avg_pool1d(x_0, STEP)[..., : sketch.shape[-1]]
    error = F.mse_loss(sketch, x_0) + NAMING * naming_loss(tower, cond, batch.subjects)
    if tower.pulse is not None:
        error = error + pulse_loss(tower.pulse, cond, batch.pulses)
    return error if tower.pitch is None else error + pitch_loss(tower.pitch, cond, batch.notes)


def pulse_loss(pulse: Pulse, cond: Conditioning, beats: Tensor | None) -> Tensor:
    """The absolute error of the logarithm of the rate, in octaves, where there is one; and whether there is one.

    beats: (B,) times a second, 0 for none.
    """
    assert cond.tokens is not None, "a word tower gives tokens"
    assert cond.mask is not None, "a word tower gives a mask"
    assert beats is not None, "a bank of sounds"
    rate, odds = pulse(cond.tokens, cond.mask)
    there = (beats > 0).float()
    apart = ((rate - beats.clamp(min=0.1).log2()).abs() * there).sum() / there.sum().clamp(min=1)
    out: Tensor = apart + F.binary_cross_entropy_with_logits(odds, there)
    return out


def pitch_loss(pitch: Pitch, cond: Conditioning, notes: Tensor | None) -> Tensor:
    """The cross-entropy of which notes (B, NOTES) are there; twelve of them weigh as much as one thing to name."""
    assert cond.tokens is not None, "a word tower gives tokens"
    assert cond.mask is not None, "a word tower gives a mask"
    assert notes is not None, "a bank of sounds"
    odds = pitch(cond.tokens, cond.mask)
    return SEMITONES * F.binary_cross_entropy_with_logits(odds, notes.float())


def naming_loss(tower: WordTower, cond: Conditioning, subjects: Tensor) -> Tensor:
    """The cross-entropy of which things the captions name; subjects: (B, 2) as a bank has them."""
    assert cond.vector is not None, "a word tower gives a vector"
    scores = tower.sketch.scores(cond.vector).float()
    subjects = subjects[:, : scores.shape[1]]
    named = F.cross_entropy(scores.transpose(1, 2), subjects, ignore_index=NOTHING, reduction="sum")
    return named / (subjects != NOTHING).sum().clamp(min=1)


def emptied(batch: Encoded, share: float, generator: torch.Generator) -> Encoded:
    """The batch with a share of its captions left empty, for guidance (arXiv:2207.12598)."""
    dropped = torch.rand(len(batch.captions), generator=generator) < share
    captions = ["" if drop else text for text, drop in zip(batch.captions, dropped.tolist(), strict=True)]
    return replace(batch, captions=captions, subjects=batch.subjects.masked_fill(dropped[:, None], NOTHING))


@final
class CourseTask:
    """The tower alone, for what moves: which things a caption names, whether they move by themselves, and where they
    go if not; the sketch stays what it was for stills."""

    def __init__(
        self,
        tower: WordTower,
        scripts: Callable[[int], Iterator[Batch]],
        things: Sequence[str],
        loops: Sequence[str],
        tokenise: Tokenise,
        *,
        rate: float,
        stills: WordTower,
    ) -> None:
        """scripts: batches, from a step on, of captions and poses; things, loops: the codes that have a slot in the
        memory, and in that of loops, in order; rate: poses a second; stills: the tower whose sketches are kept."""
        self.modules, self._scripts, self._tokenise, self._rate = tower, scripts, tokenise, rate
        self._slots, self._loops, self._stills = slots(things), {code: n for n, code in enumerate(loops)}, stills

    def batches(self, first: int) -> Iterator[Batch]:
        return self._scripts(first)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        course, loops = self.modules.course, self.modules.loops
        assert batch.poses is not None, "a bank of what moves"
        assert course is not None, "a tower with a course"
        assert loops is not None, "a tower with loops"
        seconds = (torch.arange(batch.poses.shape[1]) / self._rate).expand(batch.poses.shape[:2])
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                stills = self._stills(*self._tokenise(list(batch.stills))).concat.float()
            cond = self.modules(*self._tokenise(batch.captions))
            found: Tensor = course(cond.tokens, cond.mask, seconds)
            recalled = loops.scores(cond.vector).float()
        moved = (found - batch.poses).abs().mean() + F.mse_loss(cond.concat.float(), stills)
        named = naming_loss(self.modules, cond, self._slots(batch.codes))
        return moved + NAMING * (named + F.cross_entropy(recalled, self._recalled(batch)))

    def _recalled(self, batch: Batch) -> Tensor:
        """(B,) the slot of the loop that each film is, the last where it does not move by itself."""
        assert batch.own is not None, "films say whether they move by themselves"
        nothing = len(self._loops)
        pairs = zip(batch.codes, batch.own.tolist(), strict=True)
        return torch.tensor([self._loops[code] if own else nothing for (code,), own in pairs])

    def show(self, path: Path) -> None:
        """Nothing to see yet."""


View = Callable[[Conditioning, Encoded, torch.Generator], tuple[Tensor, Conditioning]]
"""(what the tower gives, batch, generator) -> what of the latents is trained on, and what the network is told."""


def whole(cond: Conditioning, batch: Encoded, generator: torch.Generator) -> tuple[Tensor, Conditioning]:
    """All of the latents; the sketch learns by its own loss alone."""
    return batch.x_0, replace(cond, concat=None if cond.concat is None else cond.concat.detach())


@final
class DenoiserTask:
    """Flow matching on what is in the bank: the tower and the network learn together."""

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
        view: View = whole,
        words: bool = True,
    ) -> None:
        """times: (B, generator) -> (B,); drop: share of captions left empty, for guidance (arXiv:2207.12598);
        words: whether the tower learns too, its sketch being of what is in the bank."""
        self.modules = nn.ModuleDict({"tower": tower, "network": denoiser} if words else {"network": denoiser})
        self._tower, self._denoiser, self._bank, self._batch = tower, denoiser, bank, batch
        self._tokenise, self._times, self._drop, self._show = tokenise, times, drop, show
        self._view, self._words = view, words

    def batches(self, first: int) -> Iterator[Encoded]:
        return self._bank.batches(self._batch, first)

    def loss(self, batch: Encoded, generator: torch.Generator) -> Tensor:
        batch = emptied(batch, self._drop, generator)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(self._words):
                cond: Conditioning = self._tower(*self._tokenise(batch.captions))
                sketched = sketch_loss(self._tower, cond, batch) if self._words else 0.0
            x_0, told = self._view(cond, batch, generator)
            eps = torch.randn(x_0.shape, generator=generator)
            t = broadcast(self._times(len(eps), generator), x_0)
            return self._denoiser.loss(x_0, eps, t, told).mean() + sketched

    def show(self, path: Path) -> None:
        self._show(path)


def save_sheet(x: Tensor, path: Path, columns: int) -> None:
    """Samples (B, 3, H, W) in [-1, 1] as one picture, row by row."""
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    sheet = rearrange(pixels, "(rows columns) c h w -> (rows h) (columns w) c", columns=columns)
    Image.fromarray(sheet.numpy()).save(path)
