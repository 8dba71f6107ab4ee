"""ControlNets beside the flow-matching transformers, out of the files that people have."""

import re
from collections.abc import Mapping
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
from triptych.families.flow import Parts
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
NOTES: Final = re.compile(r"control_type$")  # what ComfyUI writes beside the weights


def beside_mmdit(source: str, parts: Parts, network: Component[MMDiT]) -> Beside:
    """A ControlNet of Stable Diffusion 3: in diffusers' layout, or in Stability's. Raises WeightsError."""
    bundle = open_bundle(place(source))
    tensors, config = bundle.sets[""], bundle.configs.get("", {})
    theirs = "num_layers" in config
    shape = control_of(config) if theirs else control_in(tensors)
    if shape.hint != LATENTS:
        raise WeightsError(f"{source} sees hints of {shape.hint} channels; one whose hints are pictures has {LATENTS}.")
    layout: Layout = mmdit.diffusers if theirs else mmdit.control_original
    component = parts.filled(lambda: ControlTransformer(shape), tensors, layout, idle=NOTES)

    def watching(net: ControlTransformer, kind: int | None) -> Watching:
        check_kind(kind, None)
        return BesideMMDiT(net, network.module)

    return Beside(component, watching, unshifted if shape.silent else coded)


def beside_flux(source: str, parts: Parts, network: Component[Flux]) -> Beside:
    """A ControlNet of FLUX.1: in diffusers' layout, or in that of XLabs' files. Raises WeightsError."""
    bundle = open_bundle(place(source))
    tensors, config = bundle.sets[""], bundle.configs.get("", {})
    theirs = "num_layers" in config
    kinds, stem = config.get("num_mode"), config.get("conditioning_embedding_channels")
    stemmed = "input_hint_block.0.weight" in tensors.places
    stem = stem if theirs else tensors.shape("input_hint_block.0.weight")[1] if stemmed else None
    shape = flux_of(config) if theirs else flux_in(tensors)
    layout: Layout = flux.diffusers if theirs else flux.control_xlabs
    beside = FluxShape(doubles=len(network.module.double_blocks), singles=len(network.module.single_blocks))
    component = parts.filled(lambda: FluxControl(shape, beside, kinds=kinds, stem=stem), tensors, layout)

    def watching(net: FluxControl, kind: int | None) -> Watching:
        check_kind(kind, kinds)
        return net if kind is None else OfKind(net, kind)

    return Beside(component, watching, coded if stem is None else seen)


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
    """What names and shapes of Stability's layout say."""
    width, hint, *_ = tensors.shape("pos_embed_input.proj.weight")
    blocks = {name.split(".")[1] for name in tensors.names() if name.startswith("transformer_blocks.")}
    vector = tensors.shape("time_text_embed.text_embedder.linear_1.weight")[1]
    trunk = Shape(depth=len(blocks), width=width, heads=width // HEAD, vector=vector)
    return ControlShape(trunk, hint, joint=False, silent=False)


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


def flux_in(tensors: Tensors) -> FluxShape:
    """What names and shapes of the published layout say."""
    names = tensors.names()
    width, channels = tensors.shape("img_in.weight")
    axes = FluxShape().axes
    ends = "final_layer.linear.weight"
    return FluxShape(
        doubles=len({name.split(".")[1] for name in names if name.startswith("double_blocks.")}),
        singles=len({name.split(".")[1] for name in names if name.startswith("single_blocks.")}),
        width=width,
        heads=width // sum(axes),
        axes=axes,
        context=tensors.shape("txt_in.weight")[1],
        vector=tensors.shape("vector_in.in_layer.weight")[1],
        guided=any(name.startswith("guidance_in.") for name in names),
        in_channels=channels,
        out_channels=tensors.shape(ends)[0] if ends in tensors.places else channels,
    )


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
