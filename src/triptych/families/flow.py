"""What the flow-matching transformers share: parts that lie in one file with the network, beside it, or elsewhere.

A seat is a part beside the network: a tower or the codec. It is filled from the file that the request names, else from
where the network lies.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as File
from typing import Any, Final, Protocol, TypeVar, final

import torch
from torch import Tensor, nn

from triptych.engine.codecs.kl import KL, Setting, safe_dtype
from triptych.engine.path import Path
from triptych.engine.spacing import Shifted, Spacing, shift_by
from triptych.engine.text.clip import TOWERS as CLIP_TOWERS
from triptych.engine.text.clip import ClipText
from triptych.engine.text.t5 import TOWERS as T5_TOWERS
from triptych.engine.text.t5 import T5Text
from triptych.errors import WeightsError
from triptych.families import place
from triptych.families.elsewhere import part_in
from triptych.families.sd_weights import setting_of, tower_in
from triptych.text.kept import Kept
from triptych.weights.files import Bundle, Tensors, open_bundle
from triptych.weights.layouts import Layout, clip, t5, vae
from triptych.weights.loading import Component
from triptych.weights.shelf import Shelf

__all__ = [
    "CLIP_G",
    "CLIP_L",
    "T5",
    "Parts",
    "Seat",
    "Spaced",
    "Tabled",
    "Tuned",
    "blocks_in",
    "counted",
    "network_of",
    "seat_of_codec",
    "unprojected",
]

M = TypeVar("M", bound=nn.Module)
NO_TENSORS: Final = Tensors("nowhere", {}, {})
KINDS: Final = ("sd3", "sd3.5", "flux")  # families whose towers and codecs these are
SHELVED: Final = 64 * 2**30  # bytes that quantised weights may take on disk

Build = Callable[[Tensors, Mapping[str, Any]], Callable[[], nn.Module]]
"""(tensors, the folder's configuration) -> what builds the module."""


@final
@dataclass(frozen=True, slots=True)
class Seat:
    """option: the field that names a file of it; part: what it is told as; folder: of diffusers' layout; prefixes: in
    files with everything. idle: names of its tensors that nothing needs.
    """

    option: str
    part: str
    folder: str
    prefixes: tuple[str, ...]
    build: Build
    layout: Callable[[Sequence[str]], Layout]
    idle: re.Pattern[str] = clip.IDLE
    silent: bool = False
    blocks: tuple[str, ...] = ()


def clip_tower(kind: str, config: Mapping[str, Any], projected: int | None) -> Callable[[], ClipText]:
    """CLIP's tower of this kind, or as a folder says; projected: how wide its sum of the words is made, if it is."""
    told = tower_in(config) if config else CLIP_TOWERS[kind]
    return lambda: ClipText(**{**told, "projected": projected})


def projection(tensors: Tensors) -> int | None:
    """How wide a tower's sum of the words is made, where a file has a projection."""
    names = ("text_projection.weight", "text_projection")
    return next((tensors.shape(name)[0] for name in names if name in tensors.places), None)


def clip_layout(names: Sequence[str]) -> Layout:
    """As transformers has them, or OpenCLIP."""
    of = clip.openclip if any(name.startswith("transformer.resblocks.") for name in names) else clip.transformers
    sources = of("", names)
    return lambda _: sources


def t5_layout(names: Sequence[str]) -> Layout:
    """As transformers, llama.cpp or the authors of Wan name it."""
    sources = t5.layout(names)(names)
    return lambda _: sources


def t5_tower(tensors: Tensors, config: Mapping[str, Any]) -> Callable[[], T5Text]:
    """T5 XXL, or what a folder says."""
    if not config:
        return lambda: T5Text(**T5_TOWERS["t5-xxl"])
    feed = config.get("feed_forward_proj", "relu")
    told = {
        "width": config["d_model"],
        "layers": config["num_layers"],
        "heads": config["num_heads"],
        "hidden": config["d_ff"],
        "activation": feed.removeprefix("gated-"),
        "gated": feed.startswith("gated-"),
        "words": config["vocab_size"],
        "head": config["d_kv"],
    }
    return lambda: T5Text(**told)


CLIP_L: Final = Seat(
    "clip_l",
    "text_encoder",
    "text_encoder",
    ("text_encoders.clip_l.transformer.", "text_encoder.", ""),
    lambda tensors, config: clip_tower("vit-l", config, projection(tensors)),
    clip_layout,
)


def unprojected(seat: Seat) -> Seat:
    """CLIP's tower whose sum of the words is taken as it is, though files may hold a projection."""

    def build(tensors: Tensors, config: Mapping[str, Any]) -> Callable[[], ClipText]:
        return clip_tower("vit-l", config, None)

    return replace(seat, build=build, idle=re.compile(rf"{clip.IDLE.pattern}|^text_projection(\.weight)?$"))


CLIP_G: Final = Seat(
    "clip_g",
    "text_encoder_2",
    "text_encoder_2",
    ("text_encoders.clip_g.transformer.", "text_encoder_2.", ""),
    lambda tensors, config: clip_tower("vit-bigg", config, projection(tensors)),
    clip_layout,
)
T5: Final = Seat(
    "t5",
    "t5",
    "text_encoder_3",
    ("text_encoders.t5xxl.transformer.", "text_encoder_3.", ""),
    t5_tower,
    t5_layout,
    t5.IDLE,
    blocks=("encoder.block",),
)


def seat_of_codec(setting: Setting) -> Seat:
    """Where the codec of this setting, or as a folder says, lies."""

    def build(tensors: Tensors, config: Mapping[str, Any]) -> Callable[[], KL]:
        told = setting_of(config, setting)
        return lambda: KL(replace(told, shift=config.get("shift_factor") or told.shift))

    return Seat("vae", "vae", "vae", vae.PREFIXES, build, vae.layout)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """A tower and its name in the rooms."""

    component: Component[Any]
    name: str


@final
class Parts:
    """The components of a model, by the names of its seats' options."""

    def __init__(self, bundle: Bundle, device: str, dtype: torch.dtype, cache: File | None = None) -> None:
        """cache: a folder for what can be made again: quantised weights, encoded prompts; None: nothing is kept."""
        self.bundle, self.device, self.dtype = bundle, device, dtype
        self.shelf = None if cache is None else Shelf(cache / "quantized", SHELVED)
        self.kept = None if cache is None else Kept(cache / "prompts")

    def component(self, seat: Seat, source: str | None, quantize: str | None = None) -> Component[Any]:
        """Out of the source, a path or a hub's name, or from where the network lies. Raises WeightsError."""
        bundle = self.bundle if source is None else open_bundle(place(source))
        found = _within(bundle, seat, alone=source is not None)
        if found is None:
            without = f" Or do without: --option {seat.option}=none." if seat.silent else ""
            where = f"{bundle.where} has no {seat.option}"
            raise WeightsError(f"{where}. Name a file or folder that has it: --option {seat.option}=PATH.{without}")
        tensors, config = found
        dtype = safe_dtype(self.dtype) if seat.option == "vae" else self.dtype
        layout = seat.layout(tensors.names())
        return self.filled(seat.build(tensors, config), tensors, layout, quantize, seat.idle, dtype, seat.blocks)

    def filled(
        self,
        build: Callable[[], M],
        tensors: Tensors,
        layout: Layout,
        quantize: str | None = None,
        idle: re.Pattern[str] = clip.IDLE,
        dtype: torch.dtype | None = None,
        blocks: Sequence[str] = (),
    ) -> Component[M]:
        """A component of these tensors. blocks: its lists of what runs in turn. Raises WeightsMismatch."""
        return Component(
            build,
            tensors,
            layout,
            self.device,
            dtype or self.dtype,
            idle=idle,
            quantize=quantize,
            shelf=self.shelf,
            blocks=blocks,
        )

    def sketch(self, seat: Seat) -> KL:
        """The codec without weights: of the sizes that a folder says, or of the published ones."""
        config = self.bundle.configs.get(seat.folder, {})
        built = seat.build(NO_TENSORS, config)()
        assert isinstance(built, KL), "a codec's seat"
        return built

    def root(self, source: str | None) -> File:
        """The file or folder that a part is read from."""
        return self.bundle.where if source is None else place(source)


def _within(bundle: Bundle, seat: Seat, alone: bool) -> tuple[Tensors, Mapping[str, Any]] | None:
    """The tensors of a seat and the configuration beside them; alone: whether they may be all that there is.

    Raises WeightsError where what is there alone is known as something else.
    """
    known = part_in(bundle, seat.part, seat.option, KINDS) if alone else None
    if known is not None:
        config = {} if known.prefix else bundle.configs.get(known.folder, {})
        return bundle.sets[known.folder].under(known.prefix), config
    if seat.folder in bundle.sets:
        return bundle.sets[seat.folder], bundle.configs.get(seat.folder, {})
    lone = bundle.sets.get("")
    for prefix in seat.prefixes if lone is not None else ():
        if (prefix or alone) and (part := lone.under(prefix)).places:  # type: ignore[union-attr]  # the loop is empty else
            return part, bundle.configs.get("", {}) if alone and not prefix else {}
    return None


def network_of(bundle: Bundle) -> tuple[Tensors, Mapping[str, Any]]:
    """The transformer's tensors, and the configuration of one out of diffusers' layout, which has other names."""
    if "transformer" in bundle.sets:
        return bundle.sets["transformer"], bundle.configs.get("transformer", {})
    lone, config = bundle.sets[""], bundle.configs.get("", {})
    for prefix in ("model.diffusion_model.", "diffusion_model."):
        if (part := lone.under(prefix)).places:
            return part, {}
    return lone, config


def blocks_in(tensors: Tensors, stem: str) -> int:
    """How many blocks are named stem.0., stem.1., ..."""
    return len({name.split(".")[1] for name in tensors.names() if name.startswith(f"{stem}.")})


def counted(steps: int, strength: float) -> int:
    """The steps within this share of the path, one that is begun being whole."""
    return steps - int(max(steps - min(steps * strength, steps), 0))


class Spaced(Protocol):
    """A model's own times, and what it makes of those that a request names."""

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        """As any spacing."""
        ...

    def around(self, named: Spacing) -> Spacing:
        """A named spacing, shifted as the model's own is."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Tabled:
    """Equal steps over a table of 1,000 times that is shifted, and shifted once more (arXiv:2403.03206, equation 23).

    So Stability's own sampler and diffusers' count for Stable Diffusion 3: the last step begins at the table's end.
    """

    shift: float
    entries: int = 1000

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        last = shift_by(torch.tensor(1 / self.entries, dtype=torch.float64), self.shift)
        times = torch.linspace(1, float(last), steps, dtype=torch.float64)
        return torch.cat([shift_by(times, self.shift), times.new_zeros(1)])

    def around(self, named: Spacing) -> Spacing:
        """A named spacing, its times shifted once."""
        return Shifted(self.shift, named)
