"""Stable Diffusion from the same small folders as diffusers' pipelines: the same seed gives the same picture."""

import math
import warnings
from contextlib import contextmanager
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from triptych import families
from triptych.engine.codecs.kl import KL
from triptych.engine.nets.ldm import LatentUNet
from triptych.errors import InvalidField, WeightsMismatch
from triptych.families import cards, sd
from triptych.families.loras import loras
from triptych.model import decode, generate, prepared
from triptych.text.clip_tokens import merges, vocabulary
from triptych.types import Artifact, Request
from triptych.weights.files import open_bundle
from triptych.weights.layouts import clip, unet, vae

SIZE = 64
FILE = Artifact("image/png", b"")  # stands for what is given as samples
TABLE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": True,
}
VAE = {
    "block_out_channels": (32, 32, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
}
SMALL = {"layers_per_block": 1, "block_out_channels": (32, 64), "sample_size": SIZE // 8}


@contextmanager
def quiet():
    """Without what diffusers has to say about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tokenizer(pad="<|endoftext|>"):
    return CLIPTokenizer(vocab=vocabulary(), merges=merges(), pad_token=pad, model_max_length=77)


def tower(width, kind=CLIPTextModel, **more):
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=3, num_attention_heads=2, vocab_size=49408,
        bos_token_id=49406, eos_token_id=49407, **more,
    )  # fmt: skip
    return kind(config)


def lively(module):
    """Weights that let signals through."""
    with torch.no_grad():
        for p in module.parameters():
            if p.ndim > 1:
                p.normal_(0, 1 / math.sqrt(p[0].numel()))
    return module.eval()


def sd15(channels=4):
    unet = diffusers.UNet2DConditionModel(
        in_channels=channels, cross_attention_dim=48, attention_head_dim=4, **SMALL,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    return {
        "unet": lively(unet),
        "vae": lively(diffusers.AutoencoderKL(**VAE)),
        "text_encoder": lively(tower(48)),
        "tokenizer": tokenizer(),
        "scheduler": diffusers.DDIMScheduler(**TABLE),
        "safety_checker": None,
        "feature_extractor": None,
    }


def sdxl():
    unet = diffusers.UNet2DConditionModel(
        cross_attention_dim=48 + 64, attention_head_dim=(1, 1), layers_per_block=1, block_out_channels=(64, 64),
        sample_size=SIZE // 8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=6 * 256 + 64,
    )  # fmt: skip
    return {
        "unet": lively(unet),
        "vae": lively(diffusers.AutoencoderKL(**VAE, scaling_factor=0.13025)),
        "text_encoder": lively(tower(48)),
        "text_encoder_2": lively(tower(64, CLIPTextModelWithProjection, projection_dim=64, hidden_act="gelu")),
        "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer("!"),
        "scheduler": diffusers.DDIMScheduler(**TABLE),
    }


PIPES = {
    "sd15": (sd15, diffusers.StableDiffusionPipeline),
    "sdxl": (sdxl, diffusers.StableDiffusionXLPipeline),
}


@pytest.fixture(scope="module", params=list(PIPES))
def both(request, tmp_path_factory):
    """The folder's name of a kind, its pipeline, and the model that is loaded from the same folder."""
    torch.manual_seed(0)
    parts, kind = PIPES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with quiet():
        pipe = kind(**parts())
        pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    card = cards()[request.param]
    card = replace(card, settings={**card.settings, "source": str(folder)})
    return request.param, pipe, sd.load(card, "cpu", "float32")


def ours(model, **fields):
    samples = {name: fields.pop(name) for name in ("init", "mask") if name in fields}
    hints = fields.pop("hints", {})
    request = Request(model.card.name, "a red fox", **{"seed": 7, "height": SIZE, "width": SIZE, "steps": 6} | fields)
    resolved = model.card.resolve(request)
    model = prepared(model, resolved, hints)
    *_, last = generate(model, resolved, **samples)
    return ((decode(model, last.x_t)[0].clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()


def theirs(pipe, **fields):
    generator = torch.Generator("cpu").manual_seed(7)
    asked = {"height": SIZE, "width": SIZE, "num_inference_steps": 6, "guidance_scale": 7.5} | fields
    with quiet():
        return pipe("a red fox", generator=generator, output_type="np", **asked).images[0]


def psnr(a, b):
    return -10 * math.log10(max(float(np.mean((a - b) ** 2)), 1e-12))


DIFFUSERS = {"profile": "diffusers"}
PLMS = {"skip_prk_steps": True, "set_alpha_to_one": False}
WALKS = {  # ours, diffusers' class and what it is told: the same way through the same noise levels
    "ddim": ("ddim", "leading", diffusers.DDIMScheduler, {}),
    "euler": ("euler", "leading", diffusers.EulerDiscreteScheduler, {}),
    "euler, trailing": ("euler", "trailing", diffusers.EulerDiscreteScheduler, {"timestep_spacing": "trailing"}),
    "euler ancestral": ("euler_ancestral", "leading", diffusers.EulerAncestralDiscreteScheduler, {}),
    "dpm++ 2m": ("dpmpp_2m", "trailing", diffusers.DPMSolverMultistepScheduler, {"timestep_spacing": "trailing"}),
    "lcm": ("lcm", "lcm", diffusers.LCMScheduler, {"original_inference_steps": 50}),
    "pndm": ("pndm", "leading_first", diffusers.PNDMScheduler, PLMS),
}


def walking(pipe, kind, told):
    """The pipeline with another scheduler."""
    with quiet():
        pipe.scheduler = kind.from_config({**TABLE, "timestep_spacing": "leading", **told})
    return pipe


@pytest.mark.parametrize("name", WALKS)
def test_the_same_folder_and_seed_give_the_picture_of_diffusers(both, name):
    _, pipe, model = both
    sampler, spacing, kind, told = WALKS[name]
    picture = ours(model, sampler=sampler, spacing=spacing, guidance_scale=7.5, options=DIFFUSERS)
    expected = theirs(walking(pipe, kind, told))
    assert expected.std() > 0.05
    assert psnr(picture, expected) > 40


def test_what_leads_away_is_the_same_too(both):
    _, pipe, model = both
    picture = ours(
        model, sampler="ddim", spacing="leading", guidance_scale=5.0, negative_prompt="blurry, grey", options=DIFFUSERS
    )
    expected = theirs(walking(pipe, diffusers.DDIMScheduler, {}), negative_prompt="blurry, grey", guidance_scale=5.0)
    assert psnr(picture, expected) > 40


def gradient():
    """(1, 3, SIZE, SIZE) in [-1, 1]."""
    x = torch.linspace(-1, 1, SIZE)
    return torch.stack([x[None].expand(SIZE, -1), x[:, None].expand(-1, SIZE), (x[None] * x[:, None])])[None]


TASKS = {
    "sd15": (diffusers.StableDiffusionImg2ImgPipeline, diffusers.StableDiffusionInpaintPipeline),
    "sdxl": (diffusers.StableDiffusionXLImg2ImgPipeline, diffusers.StableDiffusionXLInpaintPipeline),
}


@pytest.mark.parametrize("strength", [0.5, 0.8])
def test_a_picture_to_start_from(both, strength):
    kind, pipe, model = both
    picture = ours(
        model, sampler="ddim", spacing="leading", guidance_scale=7.5, strength=strength, options=DIFFUSERS,
        init=gradient(), inputs={"init": FILE}, steps=10,
    )  # fmt: skip
    walking(pipe, diffusers.DDIMScheduler, {})
    expected = drawn(TASKS[kind][0](**pipe.components), image=gradient() / 2 + 0.5, strength=strength)
    assert psnr(picture, expected) > 40


def mended(kind):
    """A pipeline that begins PLMS at the first timestep that it walks. diffusers cuts its list of timesteps, of which
    the second is there twice, as if it were there once, and so skips one step: noise is left in the picture."""

    class Mended(kind):
        def get_timesteps(self, steps, strength, device):
            given, skipped = self.scheduler.timesteps, steps - min(int(steps * strength), steps)
            once = torch.cat([given[:1], given[2:]])[skipped:]
            return torch.cat([once[:2], once[1:]]), steps - skipped

    return Mended


@pytest.mark.parametrize("strength", [0.3, 0.8, 1.0])
def test_a_picture_to_start_from_by_plms(both, strength):
    kind, pipe, model = both
    if kind != "sd15":
        pytest.skip("Stable Diffusion XL comes with other schedulers")
    picture = ours(
        model, sampler="pndm", spacing="leading_first", guidance_scale=7.5, strength=strength, options=DIFFUSERS,
        init=gradient(), inputs={"init": FILE}, steps=10,
    )  # fmt: skip
    walking(pipe, diffusers.PNDMScheduler, PLMS)
    asked = {"image": gradient() / 2 + 0.5, "strength": strength}
    as_published, mended_once = (
        drawn(of(**pipe.components), **asked) for of in (TASKS[kind][0], mended(TASKS[kind][0]))
    )
    assert psnr(picture, mended_once) > 40
    assert (psnr(picture, as_published) > 40) == (strength == 1.0)


def drawn(pipe, **asked):
    pipe.set_progress_bar_config(disable=True)
    with quiet():
        generator = torch.Generator("cpu").manual_seed(7)
        told = {"guidance_scale": 7.5, "num_inference_steps": 10, "output_type": "np", **asked}
        return pipe("a red fox", generator=generator, **told).images[0]


def test_a_part_of_a_picture_made_anew(both):
    kind, pipe, model = both
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 16:48, 24:56] = 1
    picture = ours(
        model, sampler="ddim", spacing="leading", guidance_scale=7.5, strength=0.8, options=DIFFUSERS,
        init=gradient(), mask=mask, inputs={"init": FILE}, steps=10,
    )  # fmt: skip
    walking(pipe, diffusers.DDIMScheduler, {})
    expected = drawn(
        TASKS[kind][1](**pipe.components), image=gradient(), mask_image=mask, strength=0.8, height=SIZE, width=SIZE
    )
    assert psnr(picture, expected) > 40


def single_file(pipe, kind, path):
    """The components of a pipeline in one file, named as their authors publish them."""
    state = {}
    blocks = pipe.unet.config.layers_per_block

    def put(prefix, module, theirs, layout):
        with torch.device("meta"):
            names = module().state_dict()
        for name, source in layout(names).items():
            value = theirs[source.names[0]]
            is_conv = "attn_1" in name and name.endswith("weight") and "norm" not in name
            state[prefix + name] = value[..., None, None].contiguous() if is_conv else value.contiguous()

    measured = sd.measured(sd.KINDS[kind], open_bundle(path.parent / "folder"))
    put("model.diffusion_model.", lambda: LatentUNet(measured.shape), pipe.unet.state_dict(),
        lambda names: unet.diffusers(names, blocks))  # fmt: skip
    put("first_stage_model.", lambda: KL(measured.codec), pipe.vae.state_dict(), vae.diffusers)
    for one in measured.towers:
        theirs = getattr(pipe, one.folder).state_dict()
        theirs = {name.removeprefix("text_model."): value for name, value in theirs.items()}
        if one.layout is clip.transformers:
            state |= {f"{one.prefix}text_model.{name}": value.contiguous() for name, value in theirs.items()}
        else:
            state |= {one.prefix + name: value.contiguous() for name, value in openclip_named(theirs).items()}
    state["alphas_cumprod"] = torch.zeros(1000)  # as such files have them beside what is needed
    save_file(state, path)
    return measured


def openclip_named(state):
    """transformers' names of a text tower to OpenCLIP's."""
    found = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": state["text_projection.weight"].T,
    }
    renamed = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj",
               "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}  # fmt: skip
    for number in range(1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.layers."))):
        layer, block = f"encoder.layers.{number}.", f"transformer.resblocks.{number}."
        for part in ("weight", "bias"):
            thirds = [state[f"{layer}self_attn.{letter}_proj.{part}"] for letter in "qkv"]
            found[f"{block}attn.in_proj_{part}"] = torch.cat(thirds)
            found |= {f"{block}{new}.{part}": state[f"{layer}{old}.{part}"] for old, new in renamed.items()}
    return found


def test_one_file_with_everything_is_the_folder(both, tmp_path, monkeypatch):
    kind, pipe, model = both
    with quiet():
        pipe.save_pretrained(tmp_path / "folder")
    measured = single_file(pipe, kind, tmp_path / "all.safetensors")
    monkeypatch.setattr(sd, "KINDS", {kind: measured})
    card = replace(model.card, settings={**model.card.settings, "source": str(tmp_path / "all.safetensors")})
    alone = sd.load(card, "cpu", "float32")
    assert np.array_equal(ours(alone, sampler="euler"), ours(model, sampler="euler"))


def test_weights_that_do_not_fit_say_which(both, tmp_path):
    _, pipe, model = both
    with quiet():
        pipe.save_pretrained(tmp_path)
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    moved = {("strange" if name == "conv_in.bias" else name): value for name, value in tensors.items()}
    save_file(moved, path)
    card = replace(model.card, settings={**model.card.settings, "source": str(tmp_path)})
    with pytest.raises(WeightsMismatch, match=r"Missing \(1\): input_blocks.0.0.bias.*Unexpected \(1\): strange"):
        sd.load(card, "cpu", "float32")


def test_a_network_that_sees_what_is_kept(tmp_path):
    torch.manual_seed(1)
    with quiet():
        pipe = diffusers.StableDiffusionInpaintPipeline(**sd15(channels=9))
        with torch.no_grad():  # a posterior without deviation: diffusers draws what is kept after all other noise
            pipe.vae.quant_conv.weight[4:].zero_()
            pipe.vae.quant_conv.bias[4:].fill_(-30)
        pipe.save_pretrained(tmp_path)
    card = cards()["sd15-inpainting"]
    model = sd.load(replace(card, settings={**card.settings, "source": str(tmp_path)}), "cpu", "float32")
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 16:48, 24:56] = 1
    walk = {"sampler": "ddim", "spacing": "leading", "guidance_scale": 7.5, "strength": 1.0, "steps": 6}
    fields = {"init": gradient(), "mask": mask, "inputs": {"init": FILE}, **walk}
    picture = ours(model, options=DIFFUSERS, **fields)
    asked = {"image": gradient(), "mask_image": mask, "strength": 1.0, "height": SIZE, "width": SIZE}
    expected = drawn(pipe, **asked, num_inference_steps=6)
    assert psnr(picture, expected) > 40
    held = ours(model, **fields)
    kept = decode(model, model.codec.encode(gradient()))[0].clamp(-1, 1).permute(1, 2, 0).numpy() / 2 + 0.5
    assert psnr(held[:8], kept[:8]) > psnr(picture[:8], kept[:8])


def control(kind, pipe):
    """A ControlNet of the pipeline's U-Net, which says something."""
    net = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_channels=3)
    return lively(net)


CONTROLLED = {
    "sd15": diffusers.StableDiffusionControlNetPipeline,
    "sdxl": diffusers.StableDiffusionXLControlNetPipeline,
}


def test_a_hint_that_a_controlnet_follows(both, tmp_path):
    kind, pipe, model = both
    torch.manual_seed(2)
    net = control(kind, pipe)
    with quiet():
        net.save_pretrained(tmp_path)
    walking(pipe, diffusers.DDIMScheduler, {})
    hint = gradient() / 2 + 0.5
    asked = {"image": hint, "controlnet_conditioning_scale": 0.7, "height": SIZE, "width": SIZE}
    expected = drawn(CONTROLLED[kind](**pipe.components, controlnet=net), **asked)
    options = {**DIFFUSERS, "control_net": str(tmp_path), "control_scale": 0.7}
    fields = {"sampler": "ddim", "spacing": "leading", "guidance_scale": 7.5, "steps": 10, "options": options}
    picture = ours(model, **fields, inputs={"control": FILE}, hints={"control": hint})
    plain = ours(model, **{**fields, "options": DIFFUSERS})
    assert psnr(picture, expected) > 40
    assert psnr(picture, plain) < 30


def test_a_hint_needs_a_controlnet(both):
    _, _, model = both
    with pytest.raises(InvalidField, match="control_net"):
        ours(model, inputs={"control": FILE}, hints={"control": gradient()})


def test_files_of_small_changes(both, tmp_path):
    _, pipe, model = both
    torch.manual_seed(3)
    state, expected = {}, {}
    for name, weight in pipe.unet.state_dict().items():
        if name.endswith(("to_q.weight", "to_v.weight", "ff.net.2.weight")):
            down, up = torch.randn(4, weight.shape[1]) / 8, torch.randn(weight.shape[0], 4) / 8
            called = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            state |= {f"{called}.lora_down.weight": down, f"{called}.lora_up.weight": up,
                      f"{called}.alpha": torch.tensor(2.0)}  # fmt: skip
            expected[name] = weight + 0.6 * (2 / 4) * up @ down
    save_file(state | {"stranger.lora_down.weight": torch.zeros(1, 1)}, tmp_path / "small.safetensors")
    walk = {"sampler": "ddim", "spacing": "leading", "guidance_scale": 7.5}
    before = ours(model, **walk, options=DIFFUSERS)
    options = {**DIFFUSERS, "loras": f"{tmp_path / 'small.safetensors'}:0.6"}
    card = model.card
    request = card.resolve(Request(card.name, "a red fox", seed=7, height=SIZE, width=SIZE, options=options))
    assert "stranger" in prepared(model, request, {}).warnings[0]
    picture = ours(model, **walk, options=options)
    own = {name: pipe.unet.state_dict()[name].clone() for name in expected}
    pipe.unet.load_state_dict(expected, strict=False)
    walking(pipe, diffusers.DDIMScheduler, {})
    changed = theirs(pipe)
    pipe.unet.load_state_dict(own, strict=False)
    assert psnr(picture, changed) > 40
    assert psnr(picture, before) < 30
    assert np.array_equal(ours(model, **walk, options=DIFFUSERS), before)  # and all is as it was


TEXTS = ("text_encoder", "text_encoder_2", "text_encoder_3")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a.safetensors", [("a.safetensors", {"": 1.0})]),
        ("a.safetensors:0.8, d/b.safetensors:-1", [("a.safetensors", {"": 0.8}), ("d/b.safetensors", {"": -1.0})]),
        ("c:/a.safetensors:1:0", [("c:/a.safetensors", {"": 1.0, **dict.fromkeys(TEXTS, 0.0)})]),
    ],
)
def test_how_files_and_strengths_are_written(text, expected):
    assert loras(text) == expected


def test_a_strength_without_a_file_is_told():
    with pytest.raises(InvalidField, match="FILE:STRENGTH"):
        loras("a.safetensors, :0.5")


def refiner():
    unet = diffusers.UNet2DConditionModel(
        cross_attention_dim=64, attention_head_dim=(1, 1), layers_per_block=1, block_out_channels=(64, 64),
        sample_size=SIZE // 8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), transformer_layers_per_block=1,
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=5 * 256 + 64,
    )  # fmt: skip
    parts = sdxl()
    return parts | {"unet": lively(unet), "text_encoder": None, "tokenizer": None, "requires_aesthetics_score": True,
                    "force_zeros_for_empty_prompt": False}  # fmt: skip


def test_a_refiner_takes_over(both, tmp_path):
    kind, pipe, model = both
    if kind != "sdxl":
        pytest.skip("Stable Diffusion 1.5 has none")
    torch.manual_seed(4)
    with quiet():
        second = diffusers.StableDiffusionXLImg2ImgPipeline(**refiner())
        second.save_pretrained(tmp_path)
    walking(pipe, diffusers.DDIMScheduler, {})
    walking(second, diffusers.DDIMScheduler, {})
    second.vae = pipe.vae
    share = {"height": SIZE, "width": SIZE}
    half = drawn(pipe, denoising_end=0.3, output_type="latent", **share)
    asked = {"image": half[None], "denoising_start": 0.3, "original_size": (SIZE, SIZE), "target_size": (SIZE, SIZE)}
    expected = drawn(second, **asked)
    options = {**DIFFUSERS, "refiner": str(tmp_path), "refiner_start": 0.3}
    walk = {"sampler": "ddim", "spacing": "leading", "guidance_scale": 7.5, "steps": 10}
    picture = ours(model, **walk, options=options)
    assert psnr(picture, expected) > 40
    assert psnr(picture, ours(model, **walk, options=DIFFUSERS)) < 30


def test_few_steps_of_distilled_models(both):
    _, pipe, model = both
    turbo = ours(model, sampler="euler", spacing="trailing", guidance_scale=1.0, steps=2, options=DIFFUSERS)
    walking(pipe, diffusers.EulerDiscreteScheduler, {"timestep_spacing": "trailing"})
    assert psnr(turbo, theirs(pipe, guidance_scale=1.0, num_inference_steps=2)) > 40


def test_a_codec_of_its_own_file(both, tmp_path):
    _, pipe, model = both
    other = lively(diffusers.AutoencoderKL(**VAE, scaling_factor=pipe.vae.config.scaling_factor))
    save_file({name: value.contiguous() for name, value in other.state_dict().items()}, tmp_path / "vae.safetensors")
    own, pipe.vae = pipe.vae, other
    walking(pipe, diffusers.DDIMScheduler, {})
    expected = theirs(pipe)
    pipe.vae = own
    options = {**DIFFUSERS, "vae": str(tmp_path / "vae.safetensors")}
    assert psnr(ours(model, sampler="ddim", spacing="leading", guidance_scale=7.5, options=options), expected) > 40


def test_coding_in_strips_gives_the_same_picture(both):
    _, _, model = both
    fields = {"sampler": "ddim", "strength": 0.5, "init": gradient(), "inputs": {"init": FILE}, "steps": 4}
    whole, strips = (ours(model, **fields, options={"coding": way}) for way in ("whole", "strips"))
    assert psnr(whole, strips) > 60


def deep_parts(model, monkeypatch):
    """A list that grows by one whenever the first network's middle is computed."""
    calls = []
    network = model.denoiser.network.network
    was = network.middle_block.forward
    monkeypatch.setattr(network.middle_block, "forward", lambda *given: calls.append(1) or was(*given))
    return calls


def test_the_deep_part_is_left_out_between_full_steps(both, monkeypatch):
    _, _, model = both
    walk = {"sampler": "euler", "guidance_scale": 5.0, "steps": 10}
    exact = ours(model, **walk)
    calls = deep_parts(model, monkeypatch)
    assert np.array_equal(ours(model, **walk, options={"fast": 1}), exact)
    assert len(calls) == 10
    calls.clear()
    fast = ours(model, **walk, options={"fast": 3})
    assert len(calls) == 5
    assert 15 < psnr(fast, exact) < 80
    assert np.array_equal(ours(model, **walk, options={"fast": 3}), fast)
    assert np.array_equal(ours(model, **walk), exact)


def test_a_refiner_is_as_fast(both, tmp_path):
    kind, _, model = both
    if kind != "sdxl":
        pytest.skip("Stable Diffusion 1.5 has none")
    torch.manual_seed(4)
    with quiet():
        diffusers.StableDiffusionXLImg2ImgPipeline(**refiner()).save_pretrained(tmp_path)
    options = {"refiner": str(tmp_path), "refiner_start": 0.5}
    exact, fast, other = (ours(model, options={**options, "fast": n}, steps=10) for n in (1, 2, 5))
    assert psnr(fast, exact) > psnr(other, exact) > 15


def test_a_learned_word(both, tmp_path):
    kind, _, model = both
    torch.manual_seed(5)
    vectors = [torch.randn(2, net.width) / 8 for net in model.encoder.towers]
    tensors = {"emb_params": vectors[0]} if kind == "sd15" else dict(zip(("clip_l", "clip_g"), vectors, strict=True))
    save_file(tensors, tmp_path / "fox-style.safetensors")
    options = {"embeddings": str(tmp_path / "fox-style.safetensors")}

    def told(prompt, options):
        request = Request(model.card.name, prompt, seed=1, height=SIZE, width=SIZE, options=options)
        return model.encoder(model.card.resolve(request), prompt).turns[0][1].tokens

    learned, plain = told("a fox-style fox", options), told("a fox-style fox", {})
    assert not torch.equal(learned, plain)
    assert torch.equal(told("a red fox", options), told("a red fox", {}))


def test_a_network_of_v_on_a_table_that_ends_in_noise(tmp_path):
    torch.manual_seed(6)
    told = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    with quiet():
        parts = sd15() | {"scheduler": diffusers.DDIMScheduler(**TABLE, **told)}
        pipe = diffusers.StableDiffusionPipeline(**parts)
        pipe.save_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    card = cards()["sd15"]
    model = sd.load(replace(card, settings={**card.settings, "source": str(tmp_path)}), "cpu", "float32")
    picture = ours(model, sampler="ddim", spacing="trailing", guidance_scale=7.5, options=DIFFUSERS)
    assert psnr(picture, theirs(pipe)) > 40


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_prompts_are_encoded_once_a_request(both, scale):
    _, _, model = both
    heard = []
    hook = model.encoder.towers[0].register_forward_hook(lambda *call: heard.append(1))
    ours(model, guidance_scale=scale, negative_prompt="blurry", steps=2)
    hook.remove()
    assert len(heard) == 1


@pytest.mark.parametrize("more", [{}, {"init": torch.zeros(1, 3, SIZE, SIZE)}], ids=["from nothing", "from a picture"])
def test_with_little_memory_components_come_one_after_the_other_and_the_picture_is_the_same(both, more):
    _, _, model = both
    walk = {"sampler": "euler", "count": 2, **more}
    exact = ours(model, options={"coding": "whole"}, **walk)
    rooms = model.codec.rooms
    names = sorted(rooms._components)
    most = []
    came = rooms.use

    def use(wanted, work=0):
        came(wanted, work)
        most.append(sorted(name for name, one in rooms._components.items() if one.here))

    rooms.use = use
    try:
        picture = ours(model, options={"coding": "whole", "memory": "1MB"}, **walk)
    finally:
        del rooms.use
    assert names not in most
    assert ["unet"] in most
    assert ["vae"] in most
    np.testing.assert_array_equal(picture, exact)


def test_a_refiner_has_the_room_of_the_first_network(both, tmp_path):
    name, _, model = both
    if name != "sdxl":
        pytest.skip("only SDXL has one")
    with quiet():
        diffusers.StableDiffusionXLImg2ImgPipeline(**refiner()).save_pretrained(tmp_path)
    options = {"refiner": str(tmp_path), "refiner_start": 0.5, "coding": "whole"}
    exact = ours(model, options=options)
    tight = ours(model, options={**options, "memory": "1MB"})
    np.testing.assert_array_equal(tight, exact)
    rooms = model.codec.rooms
    ours(model)
    assert sorted(rooms._components) == ["text_encoder", "text_encoder_2", "unet", "vae"]


def test_a_size_that_is_none_is_told(both):
    _, _, model = both
    with pytest.raises(InvalidField, match="8GB"):
        ours(model, options={"memory": "lots"})


NOISE = {name: TABLE[name] for name in ("beta_start", "beta_end", "beta_schedule")}
LISTED = {"trained_betas": [1e-4 + 2e-5 * n for n in range(1000)]}
SAID = {  # what a folder says, what it means, and whether there is something to say of it
    "as Stable Diffusion 1.5 came": ("PNDMScheduler", {**NOISE, **PLMS, "steps_offset": 1}, "pndm", "leading_first", 0),
    "ddim": ("DDIMScheduler", {**TABLE, "set_alpha_to_one": False}, "ddim", "leading_first", 0),
    "euler": ("EulerDiscreteScheduler", {**NOISE, "timestep_spacing": "trailing"}, "euler", "trailing", 0),
    "euler karras": ("EulerDiscreteScheduler", {**NOISE, "use_karras_sigmas": True}, "euler", "karras", 0),
    "ancestral": ("EulerAncestralDiscreteScheduler", NOISE, "euler_ancestral", "linspace", 0),
    "dpm++": ("DPMSolverMultistepScheduler", NOISE, "dpmpp_2m", "linspace_spare", 0),
    "dpm++ karras": ("DPMSolverMultistepScheduler", {**NOISE, "use_karras_sigmas": True}, "dpmpp_2m", "karras", 0),
    "unipc": ("UniPCMultistepScheduler", NOISE, "unipc", "linspace_spare", 0),
    "deis": ("DEISMultistepScheduler", NOISE, "deis", "linspace_spare_first", 1),
    "tcd": ("TCDScheduler", NOISE, "ddim", "lcm_first", 0),
    "another table": ("EulerDiscreteScheduler", LISTED, "euler", "linspace", 0),
    "a short table": ("HeunDiscreteScheduler", {"num_train_timesteps": 400}, "heun", "linspace", 0),
}  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(8)
    return sd15()


def saved(parts, folder, name, told):
    """The pipeline with a scheduler of this class, in the folder."""
    with quiet():
        pipe = diffusers.StableDiffusionPipeline(**{**parts, "scheduler": getattr(diffusers, name)(**told)})
        pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # in diffusers' DEIS
@pytest.mark.parametrize("said", SAID)
def test_a_folder_walks_as_its_scheduler_says(parts, tmp_path, said):
    name, told, sampler, spacing, sentences = SAID[said]
    pipe = saved(parts, tmp_path, name, told)
    model = families.load(families.card(str(tmp_path)), "cpu", "float32")
    resolved = model.card.resolve(Request(model.card.name, "a red fox"))
    assert (resolved.sampler, resolved.spacing) == (sampler, spacing)
    assert len(prepared(model, resolved, {}).warnings) == sentences
    picture = ours(model, guidance_scale=7.5, options=DIFFUSERS)
    assert psnr(picture, theirs(pipe)) > 40


def test_what_a_request_asks_for_wins(parts, tmp_path):
    pipe = saved(parts, tmp_path, "DEISMultistepScheduler", NOISE)
    model = families.load(families.card(str(tmp_path)), "cpu", "float32")
    asked = {"sampler": "ddim", "spacing": "leading"}
    resolved = model.card.resolve(Request(model.card.name, "a red fox", **asked))
    assert (resolved.sampler, resolved.spacing) == ("ddim", "leading")
    assert prepared(model, resolved, {}).warnings == ()
    picture = ours(model, **asked, guidance_scale=7.5, options=DIFFUSERS)
    assert psnr(picture, theirs(walking(pipe, diffusers.DDIMScheduler, {}))) > 40


def test_a_folder_of_an_unknown_scheduler_walks_as_the_card(parts, tmp_path):
    saved(parts, tmp_path, "SASolverScheduler", NOISE)
    model = families.load(families.card(str(tmp_path)), "cpu", "float32")
    resolved = model.card.resolve(Request(model.card.name, "a red fox"))
    own = cards()["sd15"].fields
    assert (resolved.sampler, resolved.spacing) == (own["sampler"].default, own["spacing"].default)
    [sentence] = prepared(model, resolved, {}).warnings
    assert "SASolverScheduler" in sentence
