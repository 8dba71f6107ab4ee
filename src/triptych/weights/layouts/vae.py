"""Where the tensors of the KL autoencoder (engine/codecs/kl.py, arXiv:2112.10752) lie: names alone.

Ours are the original names, which full checkpoints keep below a prefix. diffusers counts the decoder's levels from
the coarsest, the original from the finest.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from functools import partial

from triptych.errors import WeightsError
from triptych.weights.layouts import Layout, Source

__all__ = ["diffusers", "layout", "original"]

PREFIXES = ("first_stage_model.", "vae.", "")
"""Of full checkpoints by their authors, of those that ComfyUI saves, and of files with the autoencoder alone."""

LATER = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
EARLY = {"q": "query", "k": "key", "v": "value", "proj_out": "proj_attn"}
"""What the attention's layers are called by diffusers, and were called before its version 0.13."""

RULES = (
    (r"\.(down|up)\.(\d+)\.", r".\1_blocks.\2."),
    (r"\.block\.(\d+)\.", r".resnets.\1."),
    (r"\.(down|up)sample\.", r".\1samplers.0."),
    (r"\.nin_shortcut\.", r".conv_shortcut."),
    (r"\.norm_out\.", r".conv_norm_out."),
    (r"\.mid\.block_1\.", r".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", r".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", r".mid_block.attentions.0.group_norm."),
)


def layout(keys: Collection[str]) -> Layout:
    """The layout of a file that has these keys, among whatever else. Raises WeightsError where it has no autoencoder.

    Where a file has two, as full checkpoints with one put in later have, the first of `PREFIXES` is meant.
    """
    if "decoder.up_blocks.0.resnets.0.conv1.weight" in keys:
        early = any(key.endswith(".mid_block.attentions.0.query.weight") for key in keys)
        return partial(diffusers, attention=EARLY if early else LATER)
    for prefix in PREFIXES:
        if f"{prefix}decoder.up.0.block.0.conv1.weight" in keys:
            return partial(original, prefix=prefix)
    raise WeightsError("no KL autoencoder among the tensors: one in the layout of diffusers or CompVis wanted")


def original(names: Iterable[str], prefix: str = "") -> dict[str, Source]:
    """As CompVis, Stability AI and Black Forest Labs publish them."""
    return {name: Source((prefix + name,)) for name in names}


def diffusers(names: Iterable[str], attention: Mapping[str, str] = LATER) -> dict[str, Source]:
    """As AutoencoderKL of diffusers saves them."""
    ours = list(names)
    finest = max(int(found[1]) for name in ours if (found := re.match(r"decoder\.up\.(\d+)\.", name)))
    return {name: Source((_renamed(name, finest, attention),)) for name in ours}


def _renamed(name: str, finest: int, attention: Mapping[str, str]) -> str:
    name = re.sub(r"\.up\.(\d+)\.", lambda found: f".up.{finest - int(found[1])}.", name)
    layer = r"\.mid\.attn_1\.(q|k|v|proj_out)\."
    name = re.sub(layer, lambda found: f".mid_block.attentions.0.{attention[found[1]]}.", name)
    for pattern, theirs in RULES:
        name = re.sub(pattern, theirs, name)
    return name
