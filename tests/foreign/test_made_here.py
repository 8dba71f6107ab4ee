"""A picture that the web UI wrote, made here by a small Stable Diffusion under the web UI's rules."""

import math
import warnings

import diffusers
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

import triptych

PARAMETERS = """a (red:1.3) fox <lora:ink:0.5>
Negative prompt: blur
Steps: 4, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 5, Seed: 3, Size: 64x64, Model hash: 6ce0161689, \
Model: small, Clip skip: 2, RNG: CPU, Version: v1.10.1"""


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    text = CLIPTextConfig(hidden_size=48, intermediate_size=192, num_hidden_layers=3, num_attention_heads=2)
    unet = diffusers.UNet2DConditionModel(
        cross_attention_dim=48, attention_head_dim=4, layers_per_block=1, block_out_channels=(32, 64), sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = diffusers.AutoencoderKL(block_out_channels=(32,) * 4, layers_per_block=1, **blocks)
    for module in (unet, vae):
        with torch.no_grad():
            for p in module.parameters():
                if p.ndim > 1:
                    p.normal_(0, 1 / math.sqrt(p[0].numel()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = diffusers.StableDiffusionPipeline(
            vae, CLIPTextModel(text), None, unet, diffusers.DDIMScheduler(), None, None, requires_safety_checker=False
        )
        pipe.save_pretrained(tmp_path / "small")
    width = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q.weight.shape[0]
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    parts = {f"{key}.lora_down.weight": torch.randn(2, width), f"{key}.lora_up.weight": torch.randn(width, 2)}
    save_file(parts, tmp_path / "ink.safetensors")
    return tmp_path


def test_a_picture_of_the_web_ui(home, folder):
    info = PngInfo()
    info.add_text("parameters", PARAMETERS)
    Image.new("RGB", (8, 8)).save("other.png", pnginfo=info)
    place = str(folder / "small")
    made = triptych.again("other.png", model=place, loras=folder)
    asked = {"clip_skip": 2, "profile": "a1111", "loras": f"{folder / 'ink.safetensors'}:0.5:0.5"}
    walk = {"steps": 4, "seed": 3, "sampler": "dpmpp_2m", "spacing": "karras", "guidance_scale": 5.0}
    same = triptych.load(place).make("a (red:1.3) fox", negative_prompt="blur", width=64, height=64, **walk, **asked)
    assert made.media[0].data == same.media[0].data
    assert made.warnings == same.warnings == ()
    plain = triptych.again("other.png", model=place)
    assert plain.media[0].data != made.media[0].data
    assert "LoRA ink at 0.5" in plain.warnings[0]
