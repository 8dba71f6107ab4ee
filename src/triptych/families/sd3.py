"""Stable Diffusion 3 (arXiv:2403.03206) and 3.5: flow matching by a transformer of two streams.

CLIP's two towers speak side by side, widened by zeros, and T5 after them; without T5 there are zeros in its place.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from math import isqrt
from typing import Any, Final

import torch

from triptych.engine.codecs import kl
from triptych.engine.nets.mmdit import MMDiT, Shape
from triptych.engine.text.clip import END
from triptych.families.flow import CLIP_G, CLIP_L, T5, Parts, Tabled, blocks_in, network_of, seat_of_codec
from triptych.families.flow_changes import Family, Means, loaded, sources
from triptych.families.flow_controls import beside_mmdit
from triptych.families.flow_prompts import Ears, Listener, as_it_is, t5_encoder
from triptych.families.guests import working
from triptych.families.loras import targets
from triptych.model import Model
from triptych.types import Card, Request
from triptych.weights.files import Tensors
from triptych.weights.layouts import Layout
from triptych.weights.layouts import mmdit as layouts
from triptych.weights.layouts.unet import prefixed
from triptych.weights.loading import Component
from triptych.weights.lora_names import T5 as T5_NAMES
from triptych.weights.lora_names import TEXT, TEXT_2, TRANSFORMER

__all__ = ["load", "sources"]

PREFIXES: Final = {
    "transformer": TRANSFORMER,
    "text_encoder": TEXT,
    "text_encoder_2": TEXT_2,
    "text_encoder_3": T5_NAMES,
}  # of files of small changes
TOWERS: Final = {"text_encoder": CLIP_L, "text_encoder_2": CLIP_G, "text_encoder_3": replace(T5, silent=True)}
PUBLISHED: Final = {  # of what tells the shape: the names that its authors give
    "patches": "x_embedder.proj.weight",
    "blocks": "joint_blocks",
    "places": "pos_embed",
    "norm": "x_block.attn.ln_q.weight",
    "second": "x_block.attn2.qkv.weight",
    "vector": "y_embedder.mlp.0.weight",
}
DIFFUSERS: Final = {
    "patches": "pos_embed.proj.weight",
    "blocks": "transformer_blocks",
    "places": "pos_embed.pos_embed",
    "norm": "attn.norm_q.weight",
    "second": "attn2.to_q.weight",
    "vector": "time_text_embed.text_embedder.linear_1.weight",
}
OURS: Final = PUBLISHED["patches"]  # a name that only its authors give
HEAD: Final = 64  # channels of each head, in every published one
PENULTIMATE: Final = 2  # the layer of CLIP's towers that the network attends to


def load(card: Card, device: str, dtype: str) -> Model:
    """The model whose network lies where the card's settings say. Raises WeightsError, WeightsMismatch."""

    def network(parts: Parts, quantize: str | None) -> Component[MMDiT]:
        tensors, config = network_of(parts.bundle)
        shape = _shape(tensors, config)
        layout: Layout = partial(prefixed, prefix="") if OURS in tensors.places else layouts.diffusers
        return parts.filled(lambda: MMDiT(shape), tensors, layout, quantize, blocks=("joint_blocks",))

    family = Family(
        TOWERS,
        seat_of_codec(kl.SD3),
        network,
        _listener,
        beside_mmdit,
        partial(targets, prefixes=PREFIXES, layout=layouts.diffusers),
        work,
    )
    return loaded(card, device, getattr(torch, dtype), family, Tabled(card.settings["shift"]))


def _shape(tensors: Tensors, config: Mapping[str, Any]) -> Shape:
    """What the configuration beside a network says of it, or else names and shapes. Raises WeightsError."""
    if OURS in tensors.places:
        return shape_in(tensors, PUBLISHED)
    return shape_of(config) if "num_layers" in config else shape_in(tensors, DIFFUSERS)


def shape_of(config: Mapping[str, Any]) -> Shape:
    """What diffusers' config.json says of it."""
    return Shape(
        depth=config["num_layers"],
        width=config["num_attention_heads"] * config["attention_head_dim"],
        heads=config["num_attention_heads"],
        side=config["pos_embed_max_size"],
        normed=config.get("qk_norm") is not None,
        dual=len(config.get("dual_attention_layers") or ()),
        channels=config["in_channels"],
        context=config["joint_attention_dim"],
        vector=config["pooled_projection_dim"],
    )


def shape_in(tensors: Tensors, layout: Mapping[str, str]) -> Shape:
    """What names and shapes say of it. layout: the names of what tells, PUBLISHED or DIFFUSERS."""
    width, channels, *_ = tensors.shape(layout["patches"])
    names = tensors.names()
    return Shape(
        depth=blocks_in(tensors, layout["blocks"]),
        width=width,
        heads=width // HEAD,
        side=isqrt(tensors.shape(layout["places"])[1]),
        normed=any(name.endswith(layout["norm"]) for name in names),
        dual=sum(name.endswith(layout["second"]) for name in names),
        channels=channels,
        context=tensors.shape("context_embedder.weight")[1],
        vector=tensors.shape(layout["vector"])[1],
    )


def work(pixels: int, dtype: torch.dtype) -> int:
    """Bytes beside the network's weights that a step on so many pixels takes, all pictures of the batch together.

    A guess by what U-Nets take; the whole process kept within its bound by it at 512 pixels.
    """
    return working(pixels, dtype, 256, 500)


def _listener(request: Request, means: Means) -> Listener:
    parts, rooms, told = means.parts, means.rooms, [means.towers["clip_l"], means.towers["clip_g"]]
    pads = (END, 0)  # of the two towers' tokenizers
    heard = [(one.component, PENULTIMATE, False, pad) for one, pad in zip(told, pads, strict=True)]
    ears = Ears(heard, [one.name for one in told], rooms, tokens=True)
    reading = t5_encoder(request, parts, means.towers.get("t5"), rooms)
    width = _shape(*network_of(parts.bundle)).context
    return Listener(ears, reading, width, request.options["t5_tokens"], as_it_is, parts.device)
