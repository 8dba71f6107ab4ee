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
from triptych.errors import FileProblem

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
    net = diffusers.ControlNetModel.from_unet(unet, conditioning_channels=3)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(0, 0.1)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, tmp_path / "edges.safetensors")
    return tmp_path


def written(text, name="other.png"):
    info = PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(name, pnginfo=info)
    return name


def test_a_picture_of_the_web_ui(home, folder):
    written(PARAMETERS)
    place = str(folder / "small")
    made = triptych.again("other.png", model=place, loras=folder)
    asked = {"clip_skip": 2, "profile": "a1111", "noise": "cpu", "loras": f"{folder / 'ink.safetensors'}:0.5:0.5"}
    walk = {"steps": 4, "seed": 3, "sampler": "dpmpp_2m", "spacing": "karras", "guidance_scale": 5.0}
    same = triptych.load(place).make("a (red:1.3) fox", negative_prompt="blur", width=64, height=64, **walk, **asked)
    assert made.media[0].data == same.media[0].data
    assert made.warnings == same.warnings == ()
    plain = triptych.again("other.png", model=place)
    assert plain.media[0].data != made.media[0].data
    assert "LoRA ink at 0.5" in plain.warnings[0]


UNIT = 'ControlNet 0: "Module: canny, Model: edges [d14c016b], Weight: 0.7, Guidance Start: 0, Guidance End: 1", RNG'


def test_a_picture_that_followed_a_hint(home, folder, call):
    written(PARAMETERS.replace("RNG", UNIT))
    place = str(folder / "small")
    plain = triptych.again("other.png", model=place)
    assert "ControlNet edges: it is not run. Say where it lies: --loras FOLDER." in plain.warnings
    with pytest.raises(FileProblem, match=r"the preprocessor canny made.*Give the control: --control FILE"):
        triptych.again("other.png", model=place, loras=folder)
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save("hint.png")
    made = triptych.again("other.png", model=place, loras=folder, control="hint.png")
    asked = {"clip_skip": 2, "profile": "a1111", "noise": "cpu", "loras": f"{folder / 'ink.safetensors'}:0.5:0.5"}
    hint = {"control": "hint.png", "control_net": str(folder / "edges.safetensors"), "control_scale": 0.7}
    walk = {"steps": 4, "seed": 3, "sampler": "dpmpp_2m", "spacing": "karras", "guidance_scale": 5.0}
    size = {"width": 64, "height": 64}
    same = triptych.load(place).make("a (red:1.3) fox", negative_prompt="blur", **size, **walk, **asked, **hint)
    assert made.media[0].data == same.media[0].data != plain.media[0].data
    told = ("--model", place, "--loras", str(folder), "--control", "hint.png")
    code, _, problem = call("again", "other.png", *told, "-o", "again.png")
    assert code == 0, problem
    with Image.open("again.png") as again, made.media[0].picture() as expected:
        assert again.tobytes() == expected.tobytes()


def test_where_the_web_ui_drew_its_noise_is_kept(home, folder):
    place = str(folder / "small")
    made = {}
    for said in ("RNG: CPU, ", "RNG: NV, ", "", "ENSD: 31337, ", "Variation seed: 5, Variation seed strength: 0.2, "):
        text = PARAMETERS.replace("<lora:ink:0.5>", "").replace("DPM++ 2M", "Euler a").replace("RNG: CPU, ", said)
        found = triptych.again(written(text), model=place)
        assert found.warnings == ()
        made[said] = found.media[0]
    assert made["RNG: NV, "].picture().tobytes() == made[""].picture().tobytes()
    assert len({one.picture().tobytes() for one in made.values()}) == len(made) - 1
    for one in made.values():
        assert triptych.again(one.data).media[0].data == one.data
