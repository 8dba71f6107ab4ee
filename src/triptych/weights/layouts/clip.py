"""Where the tensors of CLIP's text towers lie: in transformers' folders and in the single files of latent diffusion.

Our names are transformers'. OpenCLIP's keep query, key and value in one tensor (3D, D), and store the projection as
the matrix that a row vector is multiplied by.
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from torch import Tensor

from triptych.weights.layouts import Layout, Source

__all__ = ["IDLE", "LAYOUTS", "openclip", "transformers"]

IDLE: Final = re.compile(r"(^|\.)(embeddings\.position_ids|logit_scale|attn_mask)$")
"""Names in such files that no text tower needs: the numbers 0 to 76, CLIP's temperature, the causal mask."""


def transformers(prefix: str, names: Iterable[str]) -> Mapping[str, Source]:
    """Below prefix as transformers' CLIPTextModel, which version 5 saves without the `text_model.` of all others."""
    found: dict[str, Source] = {}
    for name in names:
        ours = name.removeprefix(prefix).removeprefix("text_model.")
        if name.startswith(prefix) and _OURS.fullmatch(ours):
            found[ours] = Source((name,))
    return found


def openclip(prefix: str, names: Iterable[str]) -> Mapping[str, Source]:
    """Below prefix as OpenCLIP's text transformer."""
    found: dict[str, Source] = {}
    for name in names:
        if name.startswith(prefix):
            found |= _of_openclip(name, name.removeprefix(prefix))
    return found


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "transformers": partial(transformers, ""),
        "sd1": partial(transformers, "cond_stage_model.transformer."),
        "sd2": partial(openclip, "cond_stage_model.model."),
        "sdxl-l": partial(transformers, "conditioner.embedders.0.transformer."),
        "sdxl-bigg": partial(openclip, "conditioner.embedders.1.model."),
        "sdxl-refiner": partial(openclip, "conditioner.embedders.0.model."),
        "openclip": partial(openclip, ""),
    }
)
"""By the files that hold them. An SDXL file holds two towers."""


_PARTS = r"(layer_norm[12]|self_attn\.(q|k|v|out)_proj|mlp\.fc[12])\.(weight|bias)"
_OURS = re.compile(
    rf"embeddings\.(token|position)_embedding\.weight|encoder\.layers\.\d+\.{_PARTS}"
    r"|final_layer_norm\.(weight|bias)|text_projection\.weight"
)

_WHOLE = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.(\w+(?:\.\w+)??)[._](weight|bias)")
_PART = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def _of_openclip(name: str, short: str) -> dict[str, Source]:
    """Which of ours are made of one of OpenCLIP's: none, one, or three."""
    if short in _WHOLE:
        return {_WHOLE[short]: Source((name,))}
    if short == "text_projection":
        return {"text_projection.weight": Source((name,), _transposed)}
    block = _BLOCK.fullmatch(short)
    if block is None:
        return {}
    layer, part, kind = block.groups()
    if part == "attn.in_proj":
        thirds = enumerate("qkv")
        return {
            f"encoder.layers.{layer}.self_attn.{letter}_proj.{kind}": Source((name,), partial(_third, number))
            for number, letter in thirds
        }
    return {f"encoder.layers.{layer}.{_PART[part]}.{kind}": Source((name,))} if part in _PART else {}


def _third(number: int, tensor: Tensor) -> Tensor:
    """(3D, ...) to its rows number D to (number + 1) D."""
    return tensor.chunk(3)[number]


def _transposed(tensor: Tensor) -> Tensor:
    """(D, D') to (D', D)."""
    return tensor.T.contiguous()
