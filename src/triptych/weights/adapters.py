"""What changes a model or adds words to it: low-rank adapters and textual inversions, told by names and shapes alone.

A low-rank file names a module and the part that a tensor plays in its change; which modules and how wide they are tell
the family that it was made for. Where that leaves several, all of them are said.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

from triptych.weights.header import Entry

__all__ = ["CONTROL", "Adapter", "adapter", "claimed"]

CONTROL = (
    "It is a control LoRA, or one for a FLUX.1 that is shown a hint: it takes in 128 channels beside 64. Control LoRAs "
    "are not supported; take a ControlNet, or the whole model of FLUX.1 Depth or Canny."
)
ROLE = re.compile(
    r"(?:(?<=_lora[12])\.(?P<xlabs>down|up)|[._](?P<role>lora_(?:down|up|mid)|lora_[AB](?:\.\w+)?|lora\.(?:down|up)"
    r"|lora_linear_layer\.(?:down|up)|alpha|dora_scale|lora_magnitude_vector(?:\.\w+)?|hada_[wt][12](?:_[ab])?"
    r"|lokr_[wt][12](?:_[ab])?|diff|diff_b|oft_blocks|oft_diag|w_norm|b_norm|on_input))(?:\.weight)?$"
)
PREFIX = re.compile(r"^((unet|transformer)\.)?base_model\.model\.")  # peft's
DOWN = ("lora_down", "lora_A", "lora.down", "lora_linear_layer.down", "hada_w1_b")  # (rank, width of what comes in)
RANKED = (*DOWN, "lokr_w1_b", "lokr_w2_b")
ALGORITHMS = {"hada": "LoHa", "lokr": "LoKr", "lora": "LoRA", "oft_": "OFT", "on_i": "IA3", "diff": "difference"}
LAYOUTS = (
    (r"(\w+\.)?base_model\.model\.", "peft"),
    (r"lora_(unet|te\d?)_", "kohya"),
    (r"lora_transformer_", "OneTrainer"),
    (r"lycoris_", "lycoris"),
    (r"(diffusion_model\.)?(double|single)_blocks\.\d+\.processor\.", "XLabs"),
    (r"diffusion_model\.|(double|single|joint)_blocks\.|(img|txt|time|vector|guidance)_in\.|final_layer\.", "original"),
)
NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?")

TAKES_TEXT = re.compile(r"attn2_(processor_)?to_[kv]$|^lora_te_.*self_attn_[qkv]_proj$")
WIDTHS = {768: "sd15", 1024: "sd2", 2048: "sdxl", 1280: "sdxl-refiner"}  # of text, as it is taken in
KNOWN = ("sd15", "sd2", "sdxl", "sdxl-refiner", "sd3", "sd3.5", "flux", "wan")
UNETS = ("sd15", "sd2", "sdxl", "sdxl-refiner")
SD3 = ("sd3", "sd3.5")
JOINT = r"(?<!\d_)(?<!single_)transformer_blocks"  # not those within a U-Net
ATTENDS = re.compile(
    r"(?<!\d_)transformer_blocks_\d+_attn2?_(to|add)_[qkv](_proj)?$|joint_blocks_\d+_(x|context)_block_attn2?_qkv$"
)
INNER: Mapping[int, tuple[str, ...]] = {1536: SD3, 2432: ("sd3.5",), 3072: ("flux",)}  # width of what attends there
EMBEDS = re.compile(r"(^|_)(img_in|x_embedder)$")  # of what FLUX.1 takes in, x_t's patches alone or more
HINTED = 128

# Modules that only some families have; dots are underscores.
TELLING: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), families)
    for pattern, families in (
        (r"(down_blocks_0|up_blocks_3)_attentions|input_blocks_[12]_1_|output_blocks_(9|10|11)_1_", ("sd15", "sd2")),
        (r"up_blocks_0_attentions|output_blocks_[012]_1_(transformer|proj)", ("sdxl",)),
        (r"(attentions_\d+|blocks_\d+_1|block_1)_transformer_blocks_[1-3]_", ("sdxl", "sdxl-refiner")),
        (r"(attentions_\d+|blocks_\d+_1|block_1)_transformer_blocks_[4-9]_", ("sdxl",)),
        (r"(down|up)_blocks_\d|mid_block_|(input|output)_blocks_\d|middle_block_", UNETS),
        (r"^lora_te[12]_|^text_encoder_2", ("sdxl", "sdxl-refiner", *SD3, "flux")),
        (r"^(lora_te2|text_encoder_2)_encoder_block_\d", ("flux",)),
        (r"^lora_te3_encoder_block_\d", (*SD3, "flux")),
        (r"^text_encoder_3_", SD3),
        (r"^lora_te_", ("sd15", "sd2")),
        (r"double_blocks_\d|single_(transformer_)?blocks_\d", ("flux",)),
        (r"joint_blocks_\d", SD3),
        (r"transformer_blocks_\d+_(attn_(to|add)_|ff_context_|norm1(_context)?_linear)", (*SD3, "flux")),
        (rf"(joint_blocks|{JOINT})_(2[4-9]|3\d)_(x_|context_|attn_(to|add)_|ff_context_)", ("sd3.5",)),
        (r"(^|_)blocks_\d+_(self|cross)_attn_", ("wan",)),
    )
)
# What trainers write into the metadata: ss_base_model_version, modelspec.architecture.
CLAIMS = (
    ("sdxl_base", "sdxl"),
    ("stable-diffusion-xl-v1-base", "sdxl"),
    ("sd_v1", "sd15"),
    ("stable-diffusion-v1", "sd15"),
    ("sd_v2", "sd2"),
    ("stable-diffusion-v2", "sd2"),
    ("sd3", "sd3"),
    ("stable-diffusion-3-5", "sd3.5"),
    ("stable-diffusion-3", "sd3"),
    ("flux", "flux"),
)


@final
@dataclass(frozen=True, slots=True)
class Adapter:
    """A low-rank file. claimed: the family of its metadata, "" where they say none."""

    algorithm: str  # LoRA, LoHa, LoKr, ..., with DoRA where lengths are learnt too
    layout: str  # kohya, diffusers, peft, original, lycoris
    families: tuple[str, ...]  # none: what it changes tells no family, or several that exclude each other
    claimed: str
    ranks: tuple[int, ...]  # all that occur, rising
    alphas: tuple[float, ...]  # all that its metadata say, rising; those that are tensors are not read
    modules: int
    targets: tuple[str, ...]  # unet, text_encoder, ...
    strange: tuple[str, ...]  # tensors that play no part of a low-rank change
    control: bool = False  # whether it is made for a FLUX.1 that takes in a hint, or makes one of another


def adapter(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> Adapter | None:
    """None where it is no low-rank file: where fewer than half of its tensors play such a part."""
    roles = {name: (name[: found.start()], _role(found)) for name in entries if (found := ROLE.search(name))}
    kinds = {role[:4] for _, role in roles.values()} & ALGORITHMS.keys()
    if not kinds or 2 * len(roles) < len(entries):
        return None
    modules = {module for module, _ in roles.values()}
    taken = {
        (_plain(module), entries[name].shape[1])
        for name, (module, role) in roles.items()
        if _is(role, DOWN) and len(entries[name].shape) > 1
    }
    ranks = {entries[name].shape[0] for name, (_, role) in roles.items() if _is(role, RANKED) and entries[name].shape}
    lengths = {role for _, role in roles.values()} & {"dora_scale", "lora_magnitude_vector"}
    named = " and ".join(ALGORITHMS[kind] for kind in sorted(kinds, key=list(ALGORITHMS).index) if kind != "diff")
    return Adapter(
        algorithm=(named or ALGORITHMS["diff"]) + (" with DoRA" if lengths else ""),
        layout=_layout(modules),
        families=_narrowed(modules, taken),
        claimed=claimed(metadata),
        ranks=tuple(sorted(ranks)),
        alphas=_alphas(metadata),
        modules=len(modules),
        targets=tuple(sorted({_target(module) for module in modules})),
        strange=tuple(name for name in entries if name not in roles),
        control=any(EMBEDS.search(module) and width == HINTED for module, width in taken),
    )


def claimed(metadata: Mapping[str, str]) -> str:
    """The family that whoever trained it wrote down, "" where nobody did."""
    claims = [metadata.get(name, "").lower() for name in ("ss_base_model_version", "modelspec.architecture")]
    return next((family for start, family in CLAIMS for claim in claims if claim.startswith(start)), "")


def _alphas(metadata: Mapping[str, str]) -> tuple[float, ...]:
    """As kohya's scripts and peft write them; what is no number is none."""
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        config = {}
    written = config.items() if isinstance(config, dict) else ()
    found: list[Any] = [value for name, value in written if name.rpartition(".")[2] == "lora_alpha"]
    texts = [*map(str, found), metadata.get("ss_network_alpha", "")]
    return tuple(sorted({float(text) for text in texts if NUMBER.fullmatch(text)}))


def _is(role: str, kinds: Iterable[str]) -> bool:
    return any(role == kind or role.startswith(f"{kind}.") for kind in kinds)


def _role(found: re.Match[str]) -> str:
    """The part that a tensor plays; XLabs puts a number into its name."""
    return str(found["role"] or f"lora.{found['xlabs']}")


def _plain(module: str) -> str:
    return PREFIX.sub("", module).replace(".", "_")


def _narrowed(modules: Iterable[str], taken: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """The families that have all of these modules, taking in tensors of these widths."""
    left = set(KNOWN)
    plain = "\n".join(map(_plain, modules))
    told = [families for pattern, families in TELLING if pattern.search(plain)]
    for families in told:
        left &= set(families)
    for module, width in taken:
        if ATTENDS.search(module):
            left &= set(INNER.get(width, KNOWN))
        elif TAKES_TEXT.search(module):
            left &= {WIDTHS.get(width, "")}
    if "_attn2_" in plain:  # a second attention, which the first of its kind does not have
        left -= {"sd3"}
    return tuple(name for name in KNOWN if name in left) if told else ()


def _layout(modules: Iterable[str]) -> str:
    found = {next((layout for start, layout in LAYOUTS if re.match(start, module)), "") for module in modules}
    return " and ".join(sorted(filter(None, found))) or "diffusers"


def _target(module: str) -> str:
    plain = _plain(module)
    if re.search(r"(^|_)encoder_block_\d", plain):
        return "t5"
    if re.match(r"lora_te2_|text_encoder_2_|text_encoders_clip_g_", plain):
        return "text_encoder_2"
    if re.match(r"lora_te1?_|text_encoder_|text_encoders_|text_model_", plain):
        return "text_encoder"
    unet = re.search(
        r"(down|up)_blocks_\d|mid_block_|(input|output)_blocks_\d|middle_block_|time_emb|conv_in|conv_out", plain
    )
    return "unet" if unet or plain.startswith("unet_") else "transformer"
