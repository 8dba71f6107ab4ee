"""FLUX.1: flow matching by a transformer of two streams that become one, as Black Forest Labs published it.

T5 says the words, CLIP their sum. dev, Fill and Kontext are told the scale of guidance; a true one, by a negative
prompt, comes on top. Fill sees what is kept of a picture, Kontext pictures beside the one that it makes.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from triptych.engine.codecs import kl
from triptych.engine.conditioning import Conditioning
from triptych.engine.nets.flux import Flux, Shape, parted
from triptych.engine.path import Path
from triptych.engine.spacing import ResolutionShifted, Spacing, uniform
from triptych.engine.text.clip import END
from triptych.families import flux_redux
from triptych.families.flow import CLIP_L, T5, Parts, network_of, seat_of_codec, unprojected
from triptych.families.flow_changes import Family, Means, loaded, sources
from triptych.families.flow_controls import OURS, beside_flux, flux_in, flux_of
from triptych.families.flow_prompts import Ears, Listener, Shown, t5_encoder
from triptych.families.guests import working
from triptych.families.loras import targets
from triptych.model import Model
from triptych.types import Card, Request
from triptych.weights.files import Tensors
from triptych.weights.layouts import Layout, flux
from triptych.weights.loading import Component
from triptych.weights.lora_names import T5 as T5_NAMES
from triptych.weights.lora_names import TEXT, TRANSFORMER
from triptych.weights.offload import StagedCodec

__all__ = ["load", "sources"]

BLOCKS: Final = ("double_blocks", "single_blocks")
PREFIXES: Final = {
    "transformer": TRANSFORMER,
    "text_encoder": TEXT,
    "text_encoder_2": T5_NAMES,
}  # of files of small changes
TOWERS: Final = {"text_encoder": unprojected(CLIP_L), "text_encoder_2": replace(T5, folder="text_encoder_2")}


def load(card: Card, device: str, dtype: str) -> Model:
    """The model whose network lies where the card's settings say. Raises WeightsError, WeightsMismatch."""
    shapes: list[Shape] = []

    def network(parts: Parts, quantize: str | None) -> Component[Flux]:
        tensors, config = network_of(parts.bundle)
        shapes[:] = [shape_in(tensors, config)]
        layout: Layout = flux.original if OURS in tensors.places else flux.diffusers
        return parts.filled(lambda: Flux(shapes[0]), tensors, layout, quantize, blocks=BLOCKS)

    def listener(request: Request, means: Means) -> Listener:
        [shape] = shapes
        one, rooms = means.towers["clip_l"], means.rooms
        ears = Ears([(one.component, 1, True, END)], [one.name], rooms, tokens=False)
        reading = t5_encoder(request, means.parts, means.towers["t5"], rooms)
        return Listener(ears, reading, shape.context, request.options["t5_tokens"], shown(shape, means), device)

    codec = seat_of_codec(kl.FLUX)
    family = Family(
        TOWERS,
        codec,
        network,
        listener,
        beside_flux,
        partial(targets, prefixes=PREFIXES, layout=flux.diffusers),
        work,
        flux_redux.brought,
    )
    model = loaded(card, device, getattr(torch, dtype), family, Growing() if card.settings["shifted"] else Even())
    fill, kontext = shapes[0].in_channels > shapes[0].out_channels, card.settings.get("references", False)
    return replace(model, init="seen" if fill else "beside" if kontext else "start", scale=true_scale)


def shape_in(tensors: Tensors, config: Mapping[str, Any]) -> Shape:
    """What the configuration beside a network says of it, or else names and shapes. Raises WeightsError."""
    return flux_of(config) if "num_layers" in config and OURS not in tensors.places else flux_in(tensors)


def true_scale(request: Request) -> float | None:
    """How much to guide by a negative prompt; what the network is told of guidance is another number."""
    scale: float | None = request.options.get("true_guidance")
    return scale


class Growing:
    """Times that are shifted the more, the more latents there are: of dev."""

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        return ResolutionShifted()(path, steps, latents)

    def around(self, named: Spacing) -> Spacing:
        """A named spacing, shifted as far."""
        return ResolutionShifted(named)


class Even:
    """Equal steps: of schnell."""

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        return uniform(path, steps, latents)

    def around(self, named: Spacing) -> Spacing:
        """A named spacing as it is."""
        return named


def work(pixels: int, dtype: torch.dtype) -> int:
    """Bytes beside the network's weights that a step on so many pixels takes, all pictures of the batch together.

    A guess by what U-Nets take; the whole process kept within its bound by it at 256 pixels.
    """
    return working(pixels, dtype, 512, 600)


def shown(shape: Shape, means: Means) -> Shown:
    """What a network of this shape is told besides words."""
    device, codec = means.parts.device, means.codec

    def told(request: Request, seen: Mapping[str, Tensor]) -> Callable[[str, Conditioning], Conditioning]:
        scalars = {"guidance": torch.tensor([request.guidance_scale or 1.0], device=device)}  # for ControlNets, too
        more = flux_redux.seen(request, means)
        fill = shape.in_channels > shape.out_channels
        concat = _kept(request, codec, device, **seen) if fill else None
        pictures = [] if fill or "init" not in seen else [seen["init"]]
        pictures += [2 * means.pictures[name] - 1 for name in REFERENCES if name in means.pictures]
        references = tuple(codec.encode(picture) for picture in pictures)

        def whole(text: str, cond: Conditioning) -> Conditioning:
            assert cond.tokens is not None, "words are told as tokens"
            tokens = cond.tokens
            if more is not None and text == request.prompt:  # what is led away from has none
                tokens = torch.cat([tokens, more.to(tokens.dtype)], dim=1)
            return replace(cond, tokens=tokens, scalars=scalars, concat=concat, references=references)

        return whole

    return told


REFERENCES: Final = ("reference", "reference_2", "reference_3")  # inputs of Kontext beside its init


def _kept(
    request: Request, codec: StagedCodec, device: str, init: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """(1, 80, h, w): latents of what is kept of the picture, grey where nothing is, and where it may change."""
    shape = (1, 1, request.height or 0, request.width or 0)
    free = torch.ones(shape, device=device) if mask is None or init is None else (mask >= 0.5).float()
    picture = torch.zeros(1, 3, *shape[2:], device=device) if init is None else init
    return torch.cat([codec.encode(picture * (1 - free)), parted(free, codec.scale_factor)], dim=1)
