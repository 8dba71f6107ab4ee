"""Where the tensors of T5's encoders lie: in transformers' folders and single files, in GGUF files, in Wan's.

Our names are transformers'. Its files hold the table of words once or twice, under `shared` and under
`encoder.embed_tokens`; a file of all of T5 holds the decoder too.
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from torch import Tensor

from triptych.weights.layouts import Layout, Source

__all__ = ["IDLE", "LAYOUTS", "gguf", "layout", "transformers", "wan"]

IDLE: Final = re.compile(r"^(decoder\..+|lm_head\.weight|dec\..+|output\.weight|spiece_model)$")
"""Names in such files that no encoder needs: the other half, and the tokenizer that ComfyUI packs with UMT5."""


def transformers(prefix: str, names: Iterable[str]) -> Mapping[str, Source]:
    """Below prefix as transformers' T5EncoderModel; of two tables of words, which are one, the first is taken."""
    found: dict[str, Source] = {}
    tables: list[str] = []
    for name in names:
        ours = name.removeprefix(prefix)
        if not name.startswith(prefix):
            continue
        if ours in _TABLES:
            tables.append(name)
        elif _OURS.fullmatch(ours):
            found[ours] = Source((name,))
    return found | ({"shared.weight": Source(tuple(tables), _first)} if tables else {})


def gguf(names: Iterable[str]) -> Mapping[str, Source]:
    """As llama.cpp names the tensors of its architecture `t5encoder`, and the encoder's half of `t5`."""
    return _renamed(names, _GGUF_BLOCK, _GGUF_PART, _GGUF_WHOLE)


def wan(names: Iterable[str]) -> Mapping[str, Source]:
    """As the authors of Wan 2.1 name the tensors of their UMT5."""
    return _renamed(names, _WAN_BLOCK, _WAN_PART, _WAN_WHOLE)


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "transformers": partial(transformers, ""),
        "sd3": partial(transformers, "text_encoders.t5xxl.transformer."),
        "gguf": gguf,
        "wan": wan,
    }
)
"""By the files that hold them. `sd3` is of checkpoints that hold everything, of Stable Diffusion 3 and of Flux."""


def layout(names: Iterable[str]) -> Layout:
    """The one that finds most."""
    listed = list(names)
    return max(LAYOUTS.values(), key=lambda one: len(one(listed)))


_TABLES = ("shared.weight", "encoder.embed_tokens.weight")
_ATTENTION = r"layer\.0\.(SelfAttention\.([qkvo]|relative_attention_bias)|layer_norm)"
_FEEDING = r"layer\.1\.(DenseReluDense\.(wi|wi_0|wi_1|wo)|layer_norm)"
_OURS = re.compile(rf"encoder\.(block\.\d+\.({_ATTENTION}|{_FEEDING})|final_layer_norm)\.weight")

_PARTS = {
    "q": "layer.0.SelfAttention.q",
    "k": "layer.0.SelfAttention.k",
    "v": "layer.0.SelfAttention.v",
    "o": "layer.0.SelfAttention.o",
}

_GGUF_BLOCK = re.compile(r"enc\.blk\.(\d+)\.(\w+)\.weight")
_GGUF_WHOLE = {"token_embd.weight": "shared.weight", "enc.output_norm.weight": "encoder.final_layer_norm.weight"}
_GGUF_PART = {
    **{f"attn_{letter}": part for letter, part in _PARTS.items()},
    "attn_norm": "layer.0.layer_norm",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "ffn_norm": "layer.1.layer_norm",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
}

_WAN_BLOCK = re.compile(r"blocks\.(\d+)\.([\w.]+)\.weight")
_WAN_WHOLE = {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
_WAN_PART = {
    **{f"attn.{letter}": part for letter, part in _PARTS.items()},
    "norm1": "layer.0.layer_norm",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}


def _renamed(
    names: Iterable[str], block: re.Pattern[str], parts: Mapping[str, str], whole: Mapping[str, str]
) -> Mapping[str, Source]:
    """Those of a block by their part, and those that are in none. A layer that widens without a gate is `wi`."""
    listed = list(names)
    found = {whole[name]: Source((name,)) for name in listed if name in whole}
    matched = {name: match for name in listed if (match := block.fullmatch(name)) and match[2] in parts}
    gated = {match[1] for match in matched.values() if parts[match[2]].endswith("wi_0")}
    for name, match in matched.items():
        part = parts[match[2]] if match[1] in gated else parts[match[2]].replace("wi_1", "wi")
        found[f"encoder.block.{match[1]}.{part}.weight"] = Source((name,))
    return found


def _first(tensor: Tensor, *others: Tensor) -> Tensor:
    """Of several that are one."""
    return tensor
