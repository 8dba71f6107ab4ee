"""Where the tensors of `Flux` and `FluxControl` lie: in their authors' single files, in diffusers' folders, in XLabs'.

Ours are named as in the first, with or without a prefix; parts of a ControlNet that these have not are named as
diffusers names them. diffusers keeps queries, keys, values and the layer beside them apart, and scale before shift.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor

from triptych.weights.layouts import Layout, Source

__all__ = ["control_xlabs", "diffusers", "original", "prefixed"]

OUTSIDE: Final[Mapping[str, str]] = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "input_hint_block.0": "input_hint_block.conv_in",
    "input_hint_block.14": "input_hint_block.conv_out",
}
DOUBLE: Final[Mapping[str, Sequence[str]]] = {
    "img_mod.lin": ["norm1.linear"],
    "txt_mod.lin": ["norm1_context.linear"],
    "img_attn.qkv": ["attn.to_q", "attn.to_k", "attn.to_v"],
    "txt_attn.qkv": ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    "img_attn.norm.query_norm": ["attn.norm_q"],
    "img_attn.norm.key_norm": ["attn.norm_k"],
    "txt_attn.norm.query_norm": ["attn.norm_added_q"],
    "txt_attn.norm.key_norm": ["attn.norm_added_k"],
    "img_attn.proj": ["attn.to_out.0"],
    "txt_attn.proj": ["attn.to_add_out"],
    "img_mlp.0": ["ff.net.0.proj"],
    "img_mlp.2": ["ff.net.2"],
    "txt_mlp.0": ["ff_context.net.0.proj"],
    "txt_mlp.2": ["ff_context.net.2"],
}
SINGLE: Final[Mapping[str, Sequence[str]]] = {
    "modulation.lin": ["norm.linear"],
    "linear1": ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"],
    "linear2": ["proj_out"],
    "norm.query_norm": ["attn.norm_q"],
    "norm.key_norm": ["attn.norm_k"],
}
BLOCKS: Final = {
    "double_blocks": ("transformer_blocks", DOUBLE),
    "single_blocks": ("single_transformer_blocks", SINGLE),
}
SAME: Final = re.compile(r"controlnet_(blocks|single_blocks)\.\d+|controlnet_(x_embedder|mode_embedder)")


def prefixed(prefix: str, names: Iterable[str]) -> dict[str, Source]:
    """The layout of the checkpoints that the networks are named after."""
    return {name: Source((prefix + name,)) for name in names}


original: Layout = partial(prefixed, "")


def control_xlabs(names: Iterable[str]) -> dict[str, Source]:
    """The layout of XLabs' ControlNets, whose names are ours but for one."""
    return {name: Source((name.replace("controlnet_x_embedder", "pos_embed_input"),)) for name in names}


def diffusers(names: Iterable[str]) -> dict[str, Source]:
    """The layout of diffusers' FluxTransformer2DModel and FluxControlNetModel."""
    return {name: _diffusers(*name.rsplit(".", 1)) for name in names}


def _diffusers(layer: str, kind: str) -> Source:
    if layer in OUTSIDE:
        return Source((f"{OUTSIDE[layer]}.{kind}",))
    if SAME.fullmatch(layer):
        return Source((f"{layer}.{kind}",))
    match layer.split(".", 2):
        case ["double_blocks" | "single_blocks" as list_, count, part]:
            theirs, parts = BLOCKS[list_]
            kept = kind.replace("scale", "weight")
            names = tuple(f"{theirs}.{count}.{one}.{kept}" for one in parts[part])
            return Source(names, _joined) if len(names) > 1 else Source(names)
        case ["input_hint_block", count]:
            return Source((f"input_hint_block.blocks.{int(count) // 2 - 1}.{kind}",))
        case ["final_layer", "adaLN_modulation", "1"]:
            return Source((f"norm_out.linear.{kind}",), _swapped)
    raise KeyError(f"{layer}.{kind}")


def _joined(*tensors: Tensor) -> Tensor:
    """Rows of all, one after the other."""
    return torch.cat(tensors)


def _swapped(tensor: Tensor) -> Tensor:
    """(2D, ...) with its halves changed over: shift comes first with us, scale with them."""
    first, second = tensor.chunk(2)
    return torch.cat([second, first])
