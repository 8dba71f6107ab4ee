"""ControlNets beside the flow-matching transformers, out of the files that people have."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isqrt
from typing import Any, Final

from torch import Tensor

from triptych.engine.codecs.kl import KL
from triptych.engine.nets.controlnet import Watching
from triptych.engine.nets.flux import Flux
from triptych.engine.nets.flux import Shape as FluxShape
from triptych.engine.nets.flux_control import FluxControl, OfKind
from triptych.engine.nets.mmdit import MMDiT, Shape
from triptych.engine.nets.mmdit_control import Beside as BesideMMDiT
from triptych.engine.nets.mmdit_control import ControlShape, ControlTransformer
from triptych.errors import InvalidField, WeightsError
from triptych.families import place
from triptych.families.flow import Parts, blocks_in
from triptych.families.flow_changes import Beside
from triptych.weights.files import Tensors, open_bundle
from triptych.weights.layouts import Layout, flux, mmdit
from triptych.weights.loading import Component
from triptych.weights.offload import StagedCodec

__all__ = ["beside_flux", "beside_mmdit"]

HEAD: Final = 64  # channels of each head of Stable Diffusion 3, in every published network
LATENTS: Final = 16  # channels
DEFAULTS: Final[Mapping[str, Any]] = {  # of diffusers' SD3ControlNetModel
    "pos_embed_max_size": 96,
    "qk_norm": None,
    "dual_attention_layers": (),
    "joint_attention_dim": 4096,
    "extra_conditioning_channels": 0,
    "force_zeros_for_pooled_projection": True,
}
OURS: Final = "img_in.weight"  # a name of FLUX.1's authors and of XLabs, not of diffusers
STABILITY: Final = "transformer_blocks.0.attn.qkv.weight"  # and one of Stability's
KINDS: Final = ("controlnet_mode_embedder.weight",)  # what a union has besides: rows by kind
STEMS: Final = ("input_hint_block.conv_in.weight", "input_hint_block.0.weight")  # what sees samples, by either layout
NOTES: Final = re.compile(r"control_type$")  # what ComfyUI writes beside the weights


def beside_mmdit(source: str, parts: Parts, network: Component[MMDiT]) -> Beside:
    """A ControlNet of Stable Diffusion 3: in diffusers' layout, or in Stability's. Raises WeightsError."""
    tensors, config = _opened(source)
    shape = control_of(config) if "num_layers" in config else control_in(tensors)
    if shape.hint != LATENTS:
        raise WeightsError(f"{source} sees hints of {shape.hint} channels; one whose hints are pictures has {LATENTS}.")
    layout: Layout = mmdit.control_original if STABILITY in tensors.places else mmdit.diffusers
    component = parts.filled(lambda: ControlTransformer(shape), tensors, layout, idle=NOTES)

    def watching(net: ControlTransformer, kind: int | None) -> Watching:
        check_kind(kind, None)
        return BesideMMDiT(net, network.module)

    return Beside(component, watching, unshifted if shape.silent else coded)


def beside_flux(source: str, parts: Parts, network: Component[Flux]) -> Beside:
    """A ControlNet of FLUX.1: in diffusers' layout, or in that of XLabs' files. Raises WeightsError."""
    tensors, config = _opened(source)
    kinds = next((tensors.shape(name)[0] for name in KINDS if name in tensors.places), None)
    stem = next((tensors.shape(name)[1] for name in STEMS if name in tensors.places), None)
    shape = flux_of(config) if "num_layers" in config else flux_in(tensors, network.module.axes)
    layout: Layout = flux.control_xlabs if OURS in tensors.places else flux.diffusers
    beside = FluxShape(doubles=len(network.module.double_blocks), singles=len(network.module.single_blocks))
    component = parts.filled(lambda: FluxControl(shape, beside, kinds=kinds, stem=stem), tensors, layout)

    def watching(net: FluxControl, kind: int | None) -> Watching:
        check_kind(kind, kinds)
        return net if kind is None else OfKind(net, kind)

    return Beside(component, watching, coded if stem is None else seen)


def _opened(source: str) -> tuple[Tensors, Mapping[str, Any]]:
    """Its tensors, and the configuration beside them. Raises WeightsError."""
    bundle = open_bundle(place(source))
    if "" not in bundle.sets:
        parts = ", ".join(sorted(bundle.sets))
        raise WeightsError(f"{source} is a whole model of several parts ({parts}); a ControlNet is one network.")
    return bundle.sets[""], bundle.configs.get("", {})


def control_of(config: Mapping[str, Any]) -> ControlShape:
    """What diffusers' config.json of a SD3ControlNetModel says."""
    told = {"pos_embed_max_size": 96, "qk_norm": None, "dual_attention_layers": (), "joint_attention_dim": 4096} | dict(
        config
    )
    trunk = Shape(
        depth=told["num_layers"],
        width=told["num_attention_heads"] * told["attention_head_dim"],
        heads=told["num_attention_heads"],
        side=told["pos_embed_max_size"] or DEFAULTS["pos_embed_max_size"],
        normed=told["qk_norm"] is not None,
        dual=len(told["dual_attention_layers"]),
        channels=told["in_channels"],
        context=told["joint_attention_dim"] or DEFAULTS["joint_attention_dim"],
        vector=told["pooled_projection_dim"],
    )
    hint = told["in_channels"] + told["extra_conditioning_channels"]
    silent = told["force_zeros_for_pooled_projection"]
    return ControlShape(trunk, hint, joint=told["joint_attention_dim"] is not None, silent=silent)


def control_in(tensors: Tensors) -> ControlShape:
    """What names and shapes say: of Stability's layout, or of diffusers' without a configuration."""
    width, hint, *_ = tensors.shape("pos_embed_input.proj.weight")
    places, depth = tensors.places, blocks_in(tensors, "transformer_blocks")
    vector = tensors.shape("time_text_embed.text_embedder.linear_1.weight")[1]
    trunk = Shape(depth=depth, width=width, heads=width // HEAD, vector=vector)
    if STABILITY in places or "context_embedder.weight" not in places:
        return ControlShape(trunk, hint, joint=False, silent=False)
    trunk = replace(
        trunk,
        side=isqrt(tensors.shape("pos_embed.pos_embed")[1]),
        normed="transformer_blocks.0.attn.norm_q.weight" in places,
        dual=sum(f"transformer_blocks.{number}.attn2.to_q.weight" in places for number in range(depth)),
        channels=tensors.shape("pos_embed.proj.weight")[1],
        context=tensors.shape("context_embedder.weight")[1],
    )
    return ControlShape(trunk, hint, joint=True, silent=True)


def flux_of(config: Mapping[str, Any]) -> FluxShape:
    """What diffusers' config.json of a FluxTransformer2DModel or a FluxControlNetModel says."""
    channels = config["in_channels"]
    return FluxShape(
        doubles=config["num_layers"],
        singles=config["num_single_layers"],
        width=config["num_attention_heads"] * config["attention_head_dim"],
        heads=config["num_attention_heads"],
        axes=tuple(config.get("axes_dims_rope", FluxShape().axes)),
        context=config["joint_attention_dim"],
        vector=config["pooled_projection_dim"],
        guided=config["guidance_embeds"],
        in_channels=channels,
        out_channels=config.get("out_channels") or channels,
    )


def flux_in(tensors: Tensors, axes: Sequence[int] = FluxShape().axes) -> FluxShape:
    """What names and shapes say: of the published layout, or of diffusers' without a configuration; axes: of heads."""
    names = PUBLISHED if OURS in tensors.places else DIFFUSERS
    width, channels = tensors.shape(names["entrance"])
    return FluxShape(
        doubles=blocks_in(tensors, names["doubles"]),
        singles=blocks_in(tensors, names["singles"]),
        width=width,
        heads=width // sum(axes),
        axes=axes,
        context=tensors.shape(names["context"])[1],
        vector=tensors.shape(names["vector"])[1],
        guided=names["guidance"] in tensors.places,
        in_channels=channels,
        out_channels=tensors.shape(names["exit"])[0] if names["exit"] in tensors.places else channels,
    )


PUBLISHED: Final = {
    "entrance": OURS,
    "doubles": "double_blocks",
    "singles": "single_blocks",
    "context": "txt_in.weight",
    "vector": "vector_in.in_layer.weight",
    "guidance": "guidance_in.in_layer.weight",
    "exit": "final_layer.linear.weight",
}
DIFFUSERS: Final = {
    "entrance": "x_embedder.weight",
    "doubles": "transformer_blocks",
    "singles": "single_transformer_blocks",
    "context": "context_embedder.weight",
    "vector": "time_text_embed.text_embedder.linear_1.weight",
    "guidance": "time_text_embed.guidance_embedder.linear_1.weight",
    "exit": "proj_out.weight",
}


def coded(codec: StagedCodec, samples: Tensor) -> Tensor:
    """A hint as latents."""
    return codec.encode(samples)


def unshifted(codec: StagedCodec, samples: Tensor) -> Tensor:
    """A hint as latents that are scaled and not shifted, as some ControlNets were trained with."""
    kl = getattr(codec.codec, "codec", codec.codec)
    assert isinstance(kl, KL), "the codec, or its strips"
    return codec.encode(samples) + kl.setting.shift * kl.setting.scale


def seen(codec: StagedCodec, samples: Tensor) -> Tensor:
    """A hint as it is."""
    return samples


def check_kind(kind: int | None, kinds: int | None) -> None:
    """Raises InvalidField where a ControlNet does not tell this kind of hints from others, or must be told one."""
    allowed = "none: this ControlNet knows one kind of hints" if kinds is None else f"0 to {kinds - 1}"
    if (kind is None) != (kinds is None) or not 0 <= (kind or 0) < (kinds or 1):
        raise InvalidField("control_kind", kind, allowed)
