"""triptych again and show of pictures that AUTOMATIC1111's web UI and ComfyUI wrote."""

import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import triptych

PARAMETERS = """a fox, <lora:ink:0.8>
Negative prompt: blur
Steps: 6, Sampler: Euler a, Schedule type: Automatic, CFG scale: 3, Seed: 7, \
Size: 64x32, Model hash: 6ce0161689, Model: dreamshaper_8, Clip skip: 2, Hires upscale: 2, \
Hires upscaler: Latent, Denoising strength: 0.5, Version: v1.10.1"""

NODES = {
    "3": (
        "KSampler",
        {"seed": 7, "steps": 3, "cfg": 2, "sampler_name": "euler", "scheduler": "karras", "denoise": 0.5},
    ),
    "4": ("CheckpointLoaderSimple", {"ckpt_name": "sd/toy.safetensors"}),
    "5": ("VAEEncode", {"pixels": ["10", 0]}),
    "6": ("CLIPTextEncode", {"text": "a fox", "clip": ["4", 1]}),
    "7": ("CLIPTextEncode", {"text": "blur", "clip": ["4", 1]}),
    "8": ("VAEDecode", {"samples": ["3", 0]}),
    "9": ("SaveImage", {"images": ["8", 0]}),
    "10": ("LoadImage", {"image": "start.png"}),
}
LINKS = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}


def written(name="other.png", **texts):
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.new("RGB", (8, 8)).save(name, pnginfo=info)


def graph():
    nodes = {name: {"class_type": kind, "inputs": dict(inputs)} for name, (kind, inputs) in NODES.items()}
    nodes["3"]["inputs"] |= LINKS
    return json.dumps(nodes)


def test_the_web_uis_picture_is_made_here(call, ask):
    written(parameters=PARAMETERS)
    code, told = ask("again", "other.png", "-m", "toy", "-o", "x.png")
    assert (code, told["files"], told["seeds"]) == (0, ["x.png"], [7])
    request = told["recipe"]["request"]
    assert request["prompt"] == "a fox,"
    assert (request["width"], request["height"], request["sampler"]) == (64, 32, "euler_ancestral")
    assert (request["options"]["hires"], request["options"]["hires_strength"]) == (2.0, 0.5)
    assert (request["steps"], request["guidance_scale"], request["negative_prompt"]) == (6, 3.0, "blur")
    said = "\n".join(told["warnings"])
    for part in (
        "Hires upscaler: Latent",
        "clip_skip 2: toy",
        "LoRA ink at 0.8: toy takes none",
        "rules of its own",
    ):
        assert part in said
    _, _, err = call("again", "other.png", "-m", "toy", "-o", "y.png")
    assert "warning: Hires upscaler: Latent" in err
    assert triptych.again("other.png", model="toy").media[0].data == Path("x.png").read_bytes()
    assert ask("again", "x.png", "-o", "z.png")[1]["warnings"] == []
    assert Path("z.png").read_bytes() == Path("x.png").read_bytes()


def test_the_model_must_be_known_or_said(call):
    written(parameters=PARAMETERS)
    code, _, err = call("again", "other.png")
    assert code == 2
    assert "'dreamshaper_8' (hash 6ce0161689)" in err
    assert "--model NAME_OR_FILE" in err
    assert "unknown model 'toi'" in call("again", "other.png", "-m", "toi")[2]


def test_comfys_picture_needs_what_it_started_from(call, ask):
    written(prompt=graph())
    code, _, err = call("again", "other.png")
    assert code == 2
    assert "from the file start.png. Give the init: --init FILE" in err
    Image.new("RGB", (32, 32), "red").save("init.png")
    code, told = ask("again", "other.png", "--init", "init.png", "-o", "x.png")  # its model has a name that is known
    assert code == 0
    request = told["recipe"]["request"]
    assert (request["model"], request["steps"], request["strength"]) == ("toy", 6, 0.5)
    assert told["recipe"]["inputs"].keys() == {"init"}


def test_show_says_what_was_understood(call, ask):
    written(parameters=PARAMETERS)
    code, told = ask("show", "other.png")
    assert code == 0
    assert (told["program"], told["model"], told["steps"]) == ("AUTOMATIC1111's web UI v1.10.1", "dreamshaper_8", 6)
    assert told["loras"] == [{"name": "ink", "weight": 0.8, "text_weight": 0.8}]
    _, out, _ = call("show", "other.png")
    assert "no equivalent here     Hires upscaler: Latent" in out
    written(prompt=graph())
    assert ask("show", "other.png")[1]["inputs"] == {"init": "the file start.png"}


@pytest.mark.parametrize("texts", [{}, {"parameters": "a cat"}, {"prompt": "{}"}])
def test_pictures_that_say_nothing(call, texts):
    written(**texts)
    for command in ("again", "show"):
        code, _, err = call(command, "other.png")
        assert code == 2
        assert "no recipe of triptych is in it" in err


def test_of_our_own_the_model_may_have_moved(call, ask):
    ask("make", "a fox", "-m", "toy", "-o", "x.png", "--steps", 3)
    code, told = ask("again", "x.png", "-m", "slow", "-o", "y.png")
    assert code == 2  # slow takes less
    assert "slow does not take it" in told["error"]["message"]
    assert ask("again", "x.png", "-m", "toy", "-o", "y.png")[1]["warnings"] == []
    assert "none for what triptych made" in call("again", "x.png", "--loras", ".")[2]
