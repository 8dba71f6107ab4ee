"""Names, shapes and counts of the published networks at full width, without memory, beside those of diffusers."""

from dataclasses import replace

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint, convert_ldm_unet_checkpoint

from triptych.engine.nets.controlnet import ControlNet
from triptych.engine.nets.ldm import REFINER, SD15, SDXL, LatentUNet
from triptych.weights.layouts.unet import control_original, diffusers, unet_original

XL = {
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "cross_attention_dim": 2048,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "projection_class_embeddings_input_dim": 2816,
}
XL_UP = {"up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")}
REFINED = {
    **XL,
    "cross_attention_dim": 1280,
    "block_out_channels": (384, 768, 1536, 1536),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": 4,
    "attention_head_dim": (6, 12, 24, 24),
    "projection_class_embeddings_input_dim": 2560,
}
ONE = {"cross_attention_dim": 768, "attention_head_dim": 8}

# (ours, theirs, the number of parameters where it is published)
NETWORKS = {
    "sd15": (lambda: LatentUNet(SD15), lambda: UNet2DConditionModel(**ONE), 859_520_964),
    "sd15-inpainting": (
        lambda: LatentUNet(replace(SD15, in_channels=9)),
        lambda: UNet2DConditionModel(**ONE, in_channels=9),
        859_535_364,
    ),
    "sdxl": (lambda: LatentUNet(SDXL), lambda: UNet2DConditionModel(**XL, **XL_UP), 2_567_463_684),
    "refiner": (lambda: LatentUNet(REFINER), lambda: UNet2DConditionModel(**REFINED), None),
    "sd15-controlnet": (lambda: ControlNet(SD15), lambda: ControlNetModel(**ONE), 361_279_120),
    "sdxl-controlnet": (lambda: ControlNet(SDXL), lambda: ControlNetModel(**XL), None),
}


def shapes(make):
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}


def count(lengths):
    return sum(torch.Size(shape).numel() for shape in lengths.values())


def squeezed(shape):
    return shape[:2] if shape[2:] == (1, 1) else shape


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_of_diffusers_is_one_of_ours(name):
    make, make_theirs, published = NETWORKS[name]
    ours, theirs = shapes(make), shapes(make_theirs)
    mapped = {source.names[0]: squeezed(ours[name]) for name, source in diffusers(ours).items()}
    assert mapped == {name: squeezed(shape) for name, shape in theirs.items()}
    assert count(ours) == count(theirs)
    assert published in (None, count(ours))


def test_prefixes_of_the_original_checkpoints():
    assert unet_original(["out.2.bias"])["out.2.bias"].names == ("model.diffusion_model.out.2.bias",)
    assert control_original(["zero_convs.0.0.bias"])["zero_convs.0.0.bias"].names == (
        "control_model.zero_convs.0.0.bias",
    )


def converted(name, ours):
    """The names that diffusers' own converter of single files gives to our tensors: theirs -> ours."""
    config = {"layers_per_block": 2} | ({} if "sd15" in name else {"addition_embed_type": "text_time"})
    if "controlnet" in name:
        sources = control_original(ours)
        return convert_controlnet_checkpoint({source.names[0]: ours for ours, source in sources.items()}, config)
    sources = unet_original(ours)
    return convert_ldm_unet_checkpoint({source.names[0]: ours for ours, source in sources.items()}, config)


@pytest.mark.parametrize("name", NETWORKS)
def test_named_as_the_single_files_that_diffusers_converts(name):
    ours = shapes(NETWORKS[name][0])
    if name == "sdxl-controlnet":  # the converter knows no vector
        ours = {name: shape for name, shape in ours.items() if not name.startswith("label_emb")}
    assert converted(name, ours) == {source.names[0]: name for name, source in diffusers(ours).items()}


def test_more_blocks_a_level():
    shape = replace(SD15, width=32, blocks=3)
    theirs = shapes(lambda: UNet2DConditionModel(**ONE, layers_per_block=3, block_out_channels=(32, 64, 128, 128)))
    sources = diffusers(shapes(lambda: LatentUNet(shape)), blocks=3)
    assert sorted(source.names[0] for source in sources.values()) == sorted(theirs)


def test_no_name_of_another_network():
    with pytest.raises(KeyError, match="model_ema"):
        diffusers(["model_ema.decay"])
