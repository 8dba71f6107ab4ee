"""Whose module each tensor of a LoRA file changes, in every naming, held against diffusers' full-sized networks."""

import subprocess
import sys

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import _convert_unet_lora_key, _maybe_map_sgm_blocks_to_diffusers
from torch import nn

from triptych.engine.nets import ldm
from triptych.engine.text.clip import ClipText
from triptych.errors import WeightsError
from triptych.weights.layouts.unet import diffusers
from triptych.weights.lora import target
from triptych.weights.lora_names import TEXT, TEXT_2, UNET, Place, Shape, Target, matched

# ---- names ---------------------------------------------------------------------------------------------------------

SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}
FAMILIES = {"sd15": (ldm.SD15, SD15, 2), "sdxl": (ldm.SDXL, SDXL, 2)}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest):
    """Our target, and diffusers' modules with their weights' shapes."""
    shape, config, blocks = FAMILIES[request.param]
    with torch.device("meta"):
        ours, theirs = ldm.LatentUNet(shape), UNet2DConditionModel(**config)
    sources = diffusers([name for name, _ in ours.named_parameters()], blocks)
    shapes = {n: tuple(m.weight.shape) for n, m in theirs.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    return request.param, target(ours, UNET, sources), shapes, theirs.config


def factors(prefix: str, modules: dict[str, Shape], down: str, up: str) -> dict[str, Shape]:
    return {f"{prefix}{name}{down}": (4, *shape[1:]) for name, shape in modules.items()} | {
        f"{prefix}{name}{up}": (shape[0], 4) for name, shape in modules.items()
    }


WRITTEN = {
    "kohya": ("lora_unet_", "_", ".lora_down.weight", ".lora_up.weight"),
    "diffusers": ("unet.", ".", ".lora.down.weight", ".lora.up.weight"),
    "diffusers with peft": ("unet.", ".", ".lora_A.weight", ".lora_B.weight"),
    "peft": ("base_model.model.", ".", ".lora_A.default.weight", ".lora_B.default.weight"),
}


@pytest.mark.parametrize("way", WRITTEN)
def test_every_module_of_diffusers_is_found_however_it_is_written(way: str, family):
    _, unet, shapes, _ = family
    prefix, dot, down, up = WRITTEN[way]
    file = factors(prefix, {name.replace(".", dot): shape for name, shape in shapes.items()}, down, up)
    found = matched(file, {"unet": unet}, way)
    assert found.unmatched == ()
    assert found.warning is None
    assert len(found.parts["unet"]) == len(shapes)
    for place, entry in found.parts["unet"].items():
        shape = unet.shapes[f"{place.module}.weight"]
        assert file[entry.roles["up"]][0] == shape[0]
        assert torch.Size(file[entry.roles["down"]][1:]).numel() == torch.Size(shape[1:]).numel()


def test_original_names_are_found_and_are_what_diffusers_takes_them_for(family):
    """diffusers' own conversion of SDXL LoRAs from original names, read by us, gives the module they came from."""
    name, unet, _, config = family
    matrices = {n.removesuffix(".weight"): shape for n, shape in unet.shapes.items() if len(shape) > 1}
    file = factors(
        "lora_unet_", {n.replace(".", "_"): s for n, s in matrices.items()}, ".lora_down.weight", ".lora_up.weight"
    )
    found = matched(file, {"unet": unet}, name)
    assert found.unmatched == ()
    assert found.parts["unet"].keys() == set(map(Place, matrices))
    if name == "sdxl":
        came_from = {}
        for module in matrices:
            key = f"lora_unet_{module.replace('.', '_')}.lora_down.weight"
            (moved,) = _maybe_map_sgm_blocks_to_diffusers({key: 0}, config)
            came_from["unet." + _convert_unet_lora_key(moved)] = module
        file = {theirs: (4, *matrices[module][1:]) for theirs, module in came_from.items()}
        file |= {n.replace(".down.", ".up."): (matrices[module][0], 4) for n, module in came_from.items()}
        entries = matched(file, {"unet": unet}, name).parts["unet"]
        assert {entry.roles["down"]: place.module for place, entry in entries.items()} == came_from


def test_old_attention_processors_are_found(family):
    _, unet, shapes, _ = family
    attention = {n: s for n, s in shapes.items() if ".attn" in n}
    old = {n.removesuffix(".0").replace(".to_", ".processor.to_"): s for n, s in attention.items()}
    for prefix in ("", "unet."):
        found = matched(factors(prefix, old, "_lora.down.weight", "_lora.up.weight"), {"unet": unet}, "old")
        assert found.unmatched == ()
        assert len(found.parts["unet"]) == len(attention)


TEXTS = {
    "kohya": ("lora_te1_text_model_", "lora_te2_text_model_", "_", ".lora_down.weight", ".lora_up.weight"),
    "diffusers": (
        "text_encoder.text_model.",
        "text_encoder_2.text_model.",
        ".",
        ".lora_linear_layer.down.weight",
        ".lora_linear_layer.up.weight",
    ),
    "transformers 5": ("text_encoder.", "text_encoder_2.", ".", ".lora_A.weight", ".lora_B.weight"),
}


@pytest.mark.parametrize("way", TEXTS)
def test_two_towers_of_the_same_names_are_told_apart(way: str):
    first, second, dot, down, up = TEXTS[way]
    towers = {
        "text": ClipText(8, 2, 2, activation="gelu", words=50),
        "text_2": ClipText(16, 3, 2, activation="gelu", words=50),
    }
    targets = {"text": target(towers["text"], TEXT), "text_2": target(towers["text_2"], TEXT_2)}
    file: dict[str, Shape] = {}
    for prefix, tower in zip((first, second), towers.values(), strict=True):
        modules = {n: tuple(m.weight.shape) for n, m in tower.named_modules() if isinstance(m, nn.Linear)}
        file |= factors(prefix, {n.replace(".", dot): shape for n, shape in modules.items()}, down, up)
    found = matched(file, targets, way)
    assert found.unmatched == ()
    assert [len(found.parts[part]) for part in ("text", "text_2")] == [12, 18]


def test_old_names_of_text_towers():
    tower = ClipText(8, 1, 2, activation="gelu", words=50)
    modules = {f"text_model.encoder.layers.0.self_attn.to_{letter}": (8, 8) for letter in ("q", "k", "v", "out")}
    file = factors("text_encoder.", modules, "_lora.down.weight", "_lora.up.weight")
    assert matched(file, {"text": target(tower, TEXT)}, "old").unmatched == ()


# ---- what does not fit -------------------------------------------------------------------------------------------


TOY = Target({"conv_in.weight": (8, 6, 3, 3), "conv_in.bias": (8,), "attn1.to_q.weight": (12, 8)}, UNET)
LOW = {"lora_up.weight": (12, 2), "lora_down.weight": (2, 8)}


def of_layer(name: str, parts: dict[str, Shape]) -> dict[str, Shape]:
    return {f"lora_unet_{name}.{part}": shape for part, shape in parts.items()}


def test_unknown_names_are_left_out_and_said():
    file = of_layer("attn1_to_q", {**LOW, "diff_b": (12,), "oft_blocks": (2, 2)}) | of_layer("attn9_to_q", LOW)
    found = matched(file | of_layer("conv_in", {"lora_up.weight": (8, 2)}), {"unet": TOY}, "toy")
    assert list(found.parts["unet"]) == [Place("attn1.to_q")]
    assert (found.total, len(found.unmatched)) == (7, 5)
    assert found.warning == (
        "toy: 5 of 7 tensors fit nothing here and are left out: lora_unet_attn1_to_q.diff_b, "
        "lora_unet_attn1_to_q.oft_blocks, lora_unet_attn9_to_q.lora_down.weight, "
        "lora_unet_attn9_to_q.lora_up.weight and others."
    )


def test_what_changes_a_module_twice_counts_once():
    file = of_layer("attn1_to_q", LOW) | {f"unet.attn1.to_q.{part}": shape for part, shape in LOW.items()}
    assert len(matched(file, {"unet": TOY}, "toy").unmatched) == 2


def test_of_two_kinds_of_change_one_counts():
    file = of_layer("attn1_to_q", {**LOW, "diff": (12, 8), "alpha": ()})
    assert matched(file, {"unet": TOY}, "toy").unmatched == ("lora_unet_attn1_to_q.diff",)


def test_names_that_could_be_two_modules_are_refused():
    with pytest.raises(WeightsError, match=r"a\.b could be a_b or a\.b|a_b could be a\.b or a_b"):
        Target({"a.b.weight": (1,), "a_b.weight": (1,)}, UNET).spellings()


@pytest.mark.parametrize(
    ("name", "width", "said"),
    [
        ("lora_unet_double_blocks_0_img_attn_proj", 3072, "it seems to be for FLUX.1"),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 768, "it seems to be for Stable Diffusion 1.x"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 2048, "it seems to be for Stable Diffusion XL"),
        ("something", 768, "what it was made for, its names do not tell"),
    ],
)
def test_a_file_that_changes_nothing_here_is_an_error_that_says_what_it_is_for(name: str, width: int, said: str):
    file = factors("", {name: (8, width)}, ".lora_down.weight", ".lora_up.weight")
    with pytest.raises(WeightsError, match=rf"toy: none of its 2 tensors changes this model; {said}\.$"):
        matched(file, {"unet": TOY}, "toy")


def test_a_file_for_other_widths_is_an_error_that_names_module_shapes_and_family(family):
    name, unet, _, _ = family
    other, said = {"sd15": (2048, "Stable Diffusion XL"), "sdxl": (768, r"Stable Diffusion 1\.x")}[name]
    module = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    file = factors("lora_unet_", {module: (640, other)}, ".lora_down.weight", ".lora_up.weight")
    shapes = rf"attn2\.to_k\.weight is \(640, \d+\) in this model and \(640, {other}\) in the file"
    with pytest.raises(WeightsError, match=f"{shapes}; it seems to be for {said}"):
        matched(file, {"unet": unet}, "other")


@pytest.mark.parametrize(
    "parts",
    [
        {"lora_up.weight": (12, 3), "lora_down.weight": (2, 8)},
        {"lora_up.weight": (12,), "lora_down.weight": (2, 8)},
        {"lora_up.weight": (12, 0), "lora_down.weight": (0, 8)},
        {"lora_up.weight": (12, 2), "lora_down.weight": (2, 4, 2)},
        {"hada_w1_a": (12, 2), "hada_w1_b": (2, 8), "hada_w2_a": (12, 2), "hada_w2_b": (2, 4)},
        {"lokr_w1": (3,), "lokr_w2": (4, 4)},
        {"lokr_w1": (3, 2), "lokr_w2": (4, 8)},
        {**LOW, "alpha": (2,)},
        {**LOW, "dora_scale": (5, 1)},
        {"diff": ()},
    ],
)
def test_factors_that_do_not_fit_are_an_error(parts: dict[str, Shape]):
    with pytest.raises(WeightsError, match=r"attn1\.to_q"):
        matched(of_layer("attn1_to_q", parts), {"unet": TOY}, "toy")


def test_a_bias_of_another_length_is_an_error():
    with pytest.raises(WeightsError, match=r"conv_in\.bias is \(8,\) in this model and \(9,\) in the file"):
        matched(of_layer("conv_in", {"diff_b": (9,)}), {"unet": TOY}, "toy")


def test_names_need_no_torch():
    code = "import sys, triptych.weights.lora_names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
