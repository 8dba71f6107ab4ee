"""Where the tensors of `MMDiT` and `ControlTransformer` lie: in single files and in diffusers' folders.

Ours are named as in the former, one prefix apart. diffusers keeps queries, keys and values apart, and where a layer
shifts and scales and does nothing else, it scales first.
"""

import re
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from triptych.weights.layouts import Layout, Source
from triptych.weights.layouts.unet import prefixed

__all__ = ["control_original", "diffusers", "mmdit_original"]

TIMES = {
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
}
SAME = ("context_embedder", "pos_embed_input.proj", "controlnet_blocks.")
OUTSIDE = {**TIMES, "x_embedder.proj": "pos_embed.proj", "final_layer.linear": "proj_out"}
OF_PLACES = {
    "attn.proj": "attn.to_out.0",
    "attn.ln_q": "attn.norm_q",
    "attn.ln_k": "attn.norm_k",
    "attn2.proj": "attn2.to_out.0",
    "attn2.ln_q": "attn2.norm_q",
    "attn2.ln_k": "attn2.norm_k",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm1.linear",
}
OF_WORDS = {
    "attn.proj": "attn.to_add_out",
    "attn.ln_q": "attn.norm_added_q",
    "attn.ln_k": "attn.norm_added_k",
    "mlp.fc1": "ff_context.net.0.proj",
    "mlp.fc2": "ff_context.net.2",
    "adaLN_modulation.1": "norm1_context.linear",
}
BLOCK = re.compile(r"joint_blocks\.(\d+)\.(x|context)_block\.(.+)\.(weight|bias)")

mmdit_original: Layout = partial(prefixed, prefix="model.diffusion_model.")


def control_original(names: Iterable[str]) -> dict[str, Source]:
    """The layout of the ControlNets that Stability published, which see no tokens."""
    return {name: Source((_of_stability(name),)) for name in names}


def diffusers(names: Iterable[str]) -> dict[str, Source]:
    """The layout of diffusers' SD3Transformer2DModel and SD3ControlNetModel."""
    whole = set(names)
    return {name: _diffusers(name, whole) for name in whole}


def _of_stability(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    if layer in TIMES:
        return f"{TIMES[layer]}.{kind}"
    found = BLOCK.fullmatch(name)
    return f"transformer_blocks.{found[1]}.{found[3]}.{kind}" if found else name


def _diffusers(name: str, whole: set[str]) -> Source:
    layer, _, kind = name.rpartition(".")
    found = BLOCK.fullmatch(name)
    if found:
        words = found[2] == "context"
        ends = words and f"joint_blocks.{found[1]}.context_block.attn.proj.weight" not in whole
        return _within(f"transformer_blocks.{found[1]}.", found[3], kind, words, ends)
    if name == "pos_embed":
        return Source(("pos_embed.pos_embed",))
    if layer == "final_layer.adaLN_modulation.1":
        return Source((f"norm_out.linear.{kind}",), _swapped)
    if name.startswith(SAME):
        return Source((name,))
    return Source((f"{OUTSIDE[layer]}.{kind}",))


def _within(block: str, layer: str, kind: str, words: bool, ends: bool) -> Source:
    """words: whether the layer is of their stream; ends: whether that comes to its end with this block."""
    if layer.endswith(".qkv"):
        parts = ("add_q_proj", "add_k_proj", "add_v_proj") if words else ("to_q", "to_k", "to_v")
        return Source(tuple(f"{block}{layer.removesuffix('qkv')}{part}.{kind}" for part in parts), _joined)
    theirs = f"{block}{(OF_WORDS if words else OF_PLACES)[layer]}.{kind}"
    return Source((theirs,), _swapped) if ends and layer == "adaLN_modulation.1" else Source((theirs,))


def _joined(*parts: Tensor) -> Tensor:
    """(D, ...) each -> (3 D, ...)."""
    return torch.cat(parts)


def _swapped(tensor: Tensor) -> Tensor:
    """(2 D, ...): scale, then shift -> shift, then scale."""
    return torch.cat(tensor.chunk(2)[::-1])
