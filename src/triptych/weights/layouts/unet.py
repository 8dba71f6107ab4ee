"""Where the tensors of `LatentUNet` and `ControlNet` lie: in single-file checkpoints and in diffusers' folders.

Ours are named as in the former, one prefix apart. There blocks are counted through; diffusers counts them by level,
and keeps residual blocks, transformers and resamplers in lists of their own.
"""

from collections.abc import Iterable, Sequence
from functools import partial

from triptych.weights.layouts import Layout, Source

__all__ = ["control_original", "diffusers", "prefixed", "unet_original"]

OUTSIDE = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "middle_block_out.0": "controlnet_mid_block",
    "input_hint_block.0": "controlnet_cond_embedding.conv_in",
    "input_hint_block.14": "controlnet_cond_embedding.conv_out",
}
RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def prefixed(names: Iterable[str], prefix: str) -> dict[str, Source]:
    """The layout of the checkpoints that the networks are named after."""
    return {name: Source((prefix + name,)) for name in names}


unet_original: Layout = partial(prefixed, prefix="model.diffusion_model.")
control_original: Layout = partial(prefixed, prefix="control_model.")


def diffusers(names: Iterable[str], blocks: int = 2) -> dict[str, Source]:
    """The layout of diffusers' UNet2DConditionModel and ControlNetModel; blocks: residual blocks a level."""
    return {name: Source((_diffusers(name, blocks + 1),)) for name in names}


def _diffusers(name: str, span: int) -> str:
    """span: by how much the count of blocks grows from level to level."""
    for ours, theirs in OUTSIDE.items():
        if name.startswith(ours + "."):
            return theirs + name.removeprefix(ours)
    match name.split("."):
        case ["input_blocks", count, "0", "op", *rest]:
            place = ["down_blocks", int(count) // span - 1, "downsamplers.0.conv", *rest]
        case ["input_blocks", count, member, *rest]:
            level, index = divmod(int(count) - 1, span)
            place = ["down_blocks", level, *_layer(member, index, rest)]
        case ["output_blocks", count, _, "conv", *rest]:
            place = ["up_blocks", int(count) // span, "upsamplers.0.conv", *rest]
        case ["output_blocks", count, member, *rest]:
            level, index = divmod(int(count), span)
            place = ["up_blocks", level, *_layer(member, index, rest)]
        case ["middle_block", member, *rest]:
            place = ["mid_block", *_layer(str(int(member) % 2), int(member) // 2, rest)]
        case ["zero_convs", count, "0", *rest]:
            place = ["controlnet_down_blocks", count, *rest]
        case ["input_hint_block", count, *rest]:
            place = ["controlnet_cond_embedding.blocks", int(count) // 2 - 1, *rest]
        case _:
            raise KeyError(name)
    return ".".join(map(str, place))


def _layer(member: str, index: int, rest: Sequence[str]) -> list[object]:
    """The first member of a block is residual, the second a transformer, whose inside has the same names."""
    if member == "1":
        return ["attentions", index, *rest]
    cut = 1 if rest[0] == "skip_connection" else 2
    return ["resnets", index, RESIDUAL[".".join(rest[:cut])], *rest[cut:]]
