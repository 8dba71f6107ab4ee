"""The embedded family: a word tower, a U-Net of any rank on the straight path, a small codec; all trained here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import final

import torch
from einops import rearrange
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from triptych.engine.adapt import merge
from triptych.engine.codec import Codec, Each, latent_shape
from triptych.engine.codecs.folded import Folded
from triptych.engine.codecs.spectral import Spectral
from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import NetworkDenoiser, flow_target
from triptych.engine.nets.unet import UNet
from triptych.engine.path import Straight
from triptych.engine.pitch import partials
from triptych.engine.poses import backwards, laid
from triptych.engine.pulse import waves
from triptych.engine.text.words import WordTower
from triptych.errors import InvalidField, WeightsError, WeightsMismatch
from triptych.families import cards
from triptych.families.fast import hastened
from triptych.model import Model
from triptych.types import Card, Request

__all__ = ["Parts", "Words", "assemble", "load"]

WEIGHTS = Path(__file__).parent / "weights"
BEGIN = 101  # the id of [CLS]: first in every text, so that an empty one still has a token


@final
@dataclass(frozen=True, slots=True)
class Parts:
    """The networks of one model, with whatever weights they hold."""

    tower: WordTower
    network: UNet
    codec: Folded | Spectral

    @property
    def sequences(self) -> bool:
        """Whether the network takes sequences of latents."""
        return self.network.place is not None

    @property
    def denoiser(self) -> NetworkDenoiser:
        """The network on the straight path, trained to give the velocity."""
        return NetworkDenoiser(self.network, Straight(), flow_target)

    def modules(self) -> nn.ModuleDict:
        """All of them by the names that their tensors have in the weights file."""
        return nn.ModuleDict({"tower": self.tower, "network": self.network, "codec": self.codec})


def assemble(card: Card) -> Parts:
    """Fresh networks of the widths that the card's settings give."""
    settings, rank = card.settings, card.settings["rank"]
    tower = WordTower(**settings["tower"])
    codec = Spectral(**settings["codec"]) if "hop" in settings["codec"] else Folded(rank, **settings["codec"])
    network = UNet(rank, codec.channels, **settings["network"])
    return Parts(tower, network, codec)


@final
class Words:
    """Texts to ids of the tower's table."""

    def __init__(self, tokenizer: str, length: int) -> None:
        """tokenizer: the text of a tokenizer.json; length: the most tokens, the first one included."""
        self._tokenizer, self.length = Tokenizer.from_str(tokenizer), length
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def ids(self, text: str) -> list[int]:
        """The ids of one text, [CLS] first."""
        return [BEGIN, *self._tokenizer.encode(text, add_special_tokens=False).ids]

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """ids and mask, both (B, L), cut to the tower's length and padded to the longest."""
        rows = [self.ids(text)[: self.length] for text in texts]
        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        return ids, torch.tensor([[n < len(row) for n in range(longest)] for row in rows])


@final
@dataclass(frozen=True, slots=True)
class WordEncoder:
    """A prompt to what the network is told."""

    words: Words
    tower: WordTower

    @torch.inference_mode()
    def __call__(self, request: Request, prompt: str, **seen: Tensor) -> Conditioning:
        """Raises InvalidField where the prompt has more tokens than the tower: nothing is cut in silence."""
        used = len(self.words.ids(prompt)) - 1
        if used >= self.words.length:
            allowed = f"up to {self.words.length - 1} tokens"
            raise InvalidField("prompt", f"{used} tokens", allowed, "Say it in fewer words.")
        ids, mask = self.words([prompt])
        device = self.tower.scale.device
        cond: Conditioning = self.tower(ids.to(device), mask.to(device))
        return cond


@final
@dataclass(frozen=True, slots=True)
class SequenceEncoder:
    """A prompt and a first frame, if there is one, to what a network of sequences is told."""

    single: WordEncoder
    codec: Codec
    card: Card

    @torch.inference_mode()
    def __call__(self, request: Request, prompt: str, **seen: Tensor) -> Conditioning:
        """seen: `init`, (1, 3, H, W). Raises InvalidField where the prompt has more tokens than the tower."""
        cond, tower = self.single(request, prompt), self.single.tower
        first = self.codec.encode(seen["init"]) if "init" in seen else None
        rate = torch.full((1,), float(request.options["fps"]), device=tower.scale.device)
        seconds = torch.arange(self.card.lengths(request)[0], device=rate.device) / rate[:, None]
        assert tower.course is not None, "a tower for sequences foretells a course"
        assert cond.tokens is not None, "a word tower gives tokens"
        assert cond.mask is not None, "a word tower gives a mask"
        assert cond.vector is not None, "a word tower gives a vector"
        own = None if tower.loops is None else tower.loops(cond.vector, seconds)
        return in_sequence(cond, rate, tower.course(cond.tokens, cond.mask, seconds), own, first)


@final
@dataclass(frozen=True, slots=True)
class LengthEncoder:
    """A prompt and how long it shall last to what a network of one axis, time, is told: sketch, pulse and notes."""

    single: WordEncoder
    codec: Spectral
    card: Card

    @torch.inference_mode()
    def __call__(self, request: Request, prompt: str, **seen: Tensor) -> Conditioning:
        """Raises InvalidField where the prompt has more tokens than the tower."""
        _, length = latent_shape(self.codec, self.card.lengths(request))
        cond, tower = self.single(request, prompt), self.single.tower
        assert tower.pulse is not None, "a tower for sounds foretells a pulse"
        assert tower.pitch is not None, "a tower for sounds foretells notes"
        assert cond.tokens is not None, "a word tower gives tokens"
        assert cond.mask is not None, "a word tower gives a mask"
        rate = float(self.card.axes[0].rate)
        likely = tower.pitch.lie(cond.tokens, cond.mask, partials(*self.codec.hertz(rate)))
        pulse = tower.pulse.rate(cond.tokens, cond.mask)
        return in_length(cond, length, rate / self.codec.scale_factor[0], pulse, likely, self.codec.rows)


def in_length(cond: Conditioning, length: int, rate: float, pulse: Tensor, likely: Tensor, rows: int) -> Conditioning:
    """What is told of so many latents, `rate` of them a second: under every row of them the sketch, which stays as it
    is at its end, the waves of the pulse, and how much of what is likely lies in each of the row's bands.

    pulse: (B,) beats a second, 0 for none; likely: (B, bands).
    """
    assert cond.concat is not None, "a word tower gives a sketch"
    sketch = rearrange(stretched(cond.concat.detach(), length), "b (c rows) t -> b c rows t", rows=rows)
    beats = waves(pulse, torch.arange(length, device=pulse.device) / rate)[:, :, None].expand(-1, -1, rows, -1)
    notes = rearrange(likely, "b (rows c) -> b c rows 1", rows=rows).expand(-1, -1, -1, length)
    told = torch.cat([sketch, beats.to(sketch.dtype), notes.to(sketch.dtype)], dim=1).flatten(1, 2)
    return replace(cond, concat=told, scalars={"seconds": torch.full((len(told),), length / rate, device=told.device)})


STEP = 4  # latents, each step of a sketch along time


def stretched(sketch: Tensor, length: int) -> Tensor:
    """(B, C, N) to (B, C, length): a step of the sketch lasts STEP latents, the last of them for good."""
    fine = interpolate(sketch, scale_factor=STEP, mode="linear")[..., :length]
    return pad(fine, (0, length - fine.shape[-1]), mode="replicate")


def in_sequence(
    cond: Conditioning,
    rate: Tensor,
    poses: Tensor,
    own: tuple[Tensor, Tensor] | None = None,
    first: Tensor | None = None,
    start: Tensor | None = None,
    shown: Tensor | None = None,
) -> Conditioning:
    """What single latents are told, for sequences: stacked under every member are the sketch where it is by then, the
    first member's latents, moved on likewise, where they are shown, and a channel that says whether they are.

    rate: (B,) members a second; poses: (B, T, POSE); own: what of it moves by itself (B, C, T, *S), and how surely it
    does (B,); first: (B, C, *S); start: (B,) seconds; shown: (B,) of which first is shown, all unless told.
    A first member that is given, and not one of a loop's own, may look unlike the sketch: then it is itself the sketch,
    moved on along the course, or changed as the loop that is recalled changes.
    """
    assert cond.concat is not None, "a word tower gives a sketch"
    sketch = cond.concat.detach()
    if first is None:
        first, shown = torch.zeros_like(sketch), torch.zeros(len(sketch))
    if sketch.shape != first.shape:
        sketch = interpolate(sketch, first.shape[2:], mode="bilinear")
    share = (first.new_ones(len(first)) if shown is None else shown.to(first)).reshape(-1, *[1] * first.ndim)
    maps = backwards(poses.float())
    following = laid(first, torch.linalg.inv(maps[:, :1]) @ maps) * share
    told = shown is None  # of a first member that may look unlike its sketch
    moving = following if told else laid(sketch, maps, poses[..., -1])
    if own is not None:
        loops, sure = own[0].detach().to(moving), own[1].detach().to(moving)
        if loops.shape != moving.shape:
            loops = interpolate(loops, moving.shape[2:], mode="trilinear")
        if told:
            loops = loops + (first[:, :, None] - loops[:, :, :1])
        moving = torch.lerp(moving, loops, sure.reshape(-1, *[1] * (moving.ndim - 1)))
    known = share.expand(len(first), 1, *moving.shape[2:])
    scalars = {"rate": rate} if start is None else {"rate": rate, "start": start}
    return replace(cond, concat=torch.cat([moving, following, known], dim=1).to(sketch.dtype), scalars=scalars)


@torch.no_grad()
def widen(network: UNet, kernel: Tensor) -> None:
    """Gives a network the first kernel of one that was told less: what else this one is told has no effect yet."""
    network.enter.weight.zero_()
    network.enter.weight[:, : kernel.shape[1]].copy_(kernel)


def load(card: Card, device: str, dtype: str) -> Model:
    """The model with its shipped weights. Raises WeightsError."""
    parts = assemble(card)
    fill(parts.modules(), tensors_of(card), card.name)
    modules = parts.modules().to(device=device, dtype=getattr(torch, dtype)).eval().requires_grad_(False)
    if card.settings["rank"] == 2:
        nn.Module.to(modules, memory_format=torch.channels_last)  # type: ignore[call-overload]  # left out of its stub
    encoder = WordEncoder(words(card), parts.tower)
    if isinstance(parts.codec, Spectral):
        return Model(card, LengthEncoder(encoder, parts.codec, card), parts.denoiser, parts.codec)
    if parts.sequences:
        return Model(card, SequenceEncoder(encoder, parts.codec, card), parts.denoiser, Each(parts.codec), init="first")
    return Model(card, encoder, parts.denoiser, parts.codec, prepare=lambda model, request, _: hastened(model, request))


def tensors_of(card: Card) -> dict[str, Tensor]:
    """Every tensor of a model: its own, over those that it shares with another. Raises WeightsError."""
    own = _read(card.settings["weights"])
    if "base" not in card.settings:
        return _read(card.settings["words"]) | own
    base = shared(card)
    return merge(base | {name: value for name, value in own.items() if ".low." not in name}, own)


def shared(card: Card) -> dict[str, Tensor]:
    """The tensors of the model that this one builds on: those whose names begin with what the card's settings say."""
    prefixes = tuple(card.settings.get("shares", [""]))
    base = tensors_of(cards()[card.settings["base"]])
    return {name: value for name, value in base.items() if name.startswith(prefixes)}


def _read(name: str) -> dict[str, Tensor]:
    if not (WEIGHTS / name).is_file():
        raise WeightsError(f"{WEIGHTS / name} is missing: install the package again, or train it (triptych train).")
    return load_file(WEIGHTS / name)


@cache
def _tokenizer(path: Path) -> str:
    return path.read_text()


def words(card: Card) -> Words:
    """The tokenizer that goes with the card's table of words."""
    path = (WEIGHTS / card.settings["words"]).with_suffix(".json")
    return Words(_tokenizer(path), card.settings["tower"]["length"])


def fill(modules: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Loads strictly, by name and shape. Raises WeightsMismatch."""
    own = modules.state_dict()
    wrong = [name for name, value in tensors.items() if name not in own or own[name].shape != value.shape]
    missing = [name for name in own if name not in tensors]
    if wrong or missing:
        raise WeightsMismatch(where, missing, wrong)
    modules.load_state_dict(dict(tensors))
