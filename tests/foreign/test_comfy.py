"""ComfyUI's graphs: followed from what is saved to the first node that samples, whatever is in between."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sd_parsers.parsers._comfyui import ComfyUIParser

from triptych import foreign
from triptych.errors import FileProblem, NoRecipe
from triptych.foreign import comfy
from triptych.foreign.told import Hint, Lora
from triptych.profiles import PROFILES

SEED = 156680208700286


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def plain(**changes):
    """The workflow that ComfyUI opens with; changes: of the inputs of its KSampler."""
    sampler = {
        "seed": SEED,
        "steps": 20,
        "cfg": 8,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1,
        "model": ["4", 0],
        "positive": ["6", 0],
        "negative": ["7", 0],
        "latent_image": ["5", 0],
    }
    return {
        "3": node("KSampler", **sampler | changes),
        "4": node("CheckpointLoaderSimple", ckpt_name="SD1.5/v1-5-pruned-emaonly.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "6": node("CLIPTextEncode", text="beautiful (scenery:1.2), glass bottle", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="text, watermark", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    }


def read(graph):
    return comfy.read(json.dumps(graph), "x")


def test_the_workflow_that_it_opens_with():
    told = read(plain())
    assert told.program == "ComfyUI"
    assert told.prompt == "beautiful (scenery:1.2), glass bottle"
    assert told.negative_prompt == "text, watermark"
    assert told.fields == {
        "width": 512,
        "height": 768,
        "seed": SEED % 2**32,
        "guidance_scale": 8.0,
        "steps": 20,
        "sampler": "euler",
        "spacing": "linspace",
    }
    assert told.options == {"profile": "comfy"}
    assert told.model == "SD1.5/v1-5-pruned-emaonly.safetensors"
    assert told.lost == ()


def test_seeds_draw_the_same_whether_whole_or_not():
    torch = pytest.importorskip("torch")
    noise = [torch.randn(64, generator=torch.Generator("cpu").manual_seed(seed)) for seed in (SEED, SEED % 2**32)]
    assert torch.equal(*noise)


@pytest.mark.parametrize(
    ("name", "seed", "options"),
    [
        ("euler", 2**63 + 5, {}),
        ("euler_ancestral", 5, {}),
        ("euler_ancestral", 2**32 + 5, {"noise_delta": 2**32}),
        ("dpmpp_2m_sde", 2**64 - 1, {"noise_delta": -(2**32)}),
        ("dpmpp_2m_sde_gpu", 5, {"noise": "gpu"}),
    ],
)
def test_noise_of_the_steps_has_all_of_the_seed(name, seed, options):
    told = read(plain(sampler_name=name, seed=seed))
    assert told.options == {"profile": "comfy", **options}
    assert (told.fields["seed"] + told.options.get("noise_delta", 0)) % 2**64 in (seed, seed % 2**32)
    assert told.lost == ()


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *(("normal", "linspace"), ("simple", "simple"), ("ddim_uniform", "ddim_uniform"), ("beta", "beta")),
        *(("linear_quadratic", "linear_quadratic"), ("kl_optimal", "kl_optimal"), ("sgm_uniform", "sgm_uniform")),
    ],
)
def test_schedulers_are_ours_by_their_profile(name, ours):
    told = read(plain(scheduler=name, sampler_name="dpm_2", steps=30))
    assert (told.fields["spacing"], told.lost) == (ours, ())


def test_a_controlnet_that_is_not_known_is_told():
    graph = plain(positive=["40", 0])
    graph["40"] = node("ControlNetApply", conditioning=["6", 0], control_net=["44", 0], strength=1.0)
    graph["44"] = node("Odd Loader", thing="x")
    told = read(graph)
    assert (told.prompt, told.hints) == ("beautiful (scenery:1.2), glass bottle", ())
    assert "the node that loads its ControlNet is not known here" in told.lost[0]


def test_another_reader_finds_the_same():
    graph = plain()
    links = [
        [n, int(given[0]), given[1], int(name), 0, "CLIP" if key == "clip" else "X"]
        for n, (name, key, given) in enumerate(
            (name, key, given)
            for name, entry in graph.items()
            for key, given in entry["inputs"].items()
            if isinstance(given, list)
        )
    ]
    found = ComfyUIParser().parse({"prompt": json.dumps(graph), "workflow": {"links": links}})
    [sampler] = found.samplers
    told = read(graph)
    assert sampler.name == told.fields["sampler"]
    assert [one.value for one in sampler.prompts] == [told.prompt]
    assert [one.value for one in sampler.negative_prompts] == [told.negative_prompt]
    assert sampler.model.name == told.model
    assert int(sampler.parameters["seed"]) % 2**32 == told.fields["seed"]
    assert int(sampler.parameters["steps"]) == told.fields["steps"]
    assert float(sampler.parameters["cfg_scale"]) == told.fields["guidance_scale"]


def test_loras_clip_skip_and_what_else_changes_the_model():
    graph = plain(model=["20", 0])
    graph["10"] = node("LoraLoader", lora_name="a.safetensors", strength_model=0.8, strength_clip=0.6, model=["4", 0])
    graph["11"] = node("LoraLoaderModelOnly", lora_name="b.safetensors", strength_model=1, model=["10", 0])
    stack = {"lora_1": {"on": True, "lora": "c.safetensors", "strength": 0.5}, "lora_2": {"on": False, "lora": "d"}}
    graph["12"] = node("Power Lora Loader (rgthree)", model=["11", 0], **stack)
    graph["13"] = node("RescaleCFG", multiplier=0.7, model=["12", 0])
    graph["20"] = node("FreeU_V2", b1=1.3, model=["13", 0])
    graph["14"] = node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["10", 1])
    graph["6"]["inputs"]["clip"] = ["14", 0]
    told = read(graph)
    assert told.loras == (
        Lora("a.safetensors", 0.8, 0.6),
        Lora("b.safetensors", 1.0, 1.0),
        Lora("c.safetensors", 0.5, 0.5),
    )
    assert told.options == {"profile": "comfy", "clip_skip": 2, "guidance_rescale": 0.7}
    assert told.model == "SD1.5/v1-5-pruned-emaonly.safetensors"
    assert told.lost == ("FreeU_V2 (node 20): what it does to the model has no equivalent here.",)


@pytest.mark.parametrize("steps", [1, 7, 20, 49, 333])
@pytest.mark.parametrize("denoise", [0.01, 0.3, 0.55, 0.6, 0.87, 0.99])
def test_a_part_of_the_path_is_as_many_steps(steps, denoise):
    graph = plain(steps=steps, denoise=denoise, latent_image=["10", 0])
    graph["10"] = node("VAEEncode", pixels=["12", 0], vae=["4", 2])
    graph["12"] = node("ImageScale", image=["11", 0], width=640, height=384, upscale_method="lanczos", crop="center")
    graph["11"] = node("LoadImage", image="fox.png", upload="image")
    told = read(graph)
    assert told.inputs == {"init": "the file fox.png"}
    assert (told.fields["width"], told.fields["height"]) == (640, 384)
    whole = told.fields["steps"]
    assert whole == int(steps / denoise)
    assert PROFILES["comfy"].walked(whole, told.fields["strength"]) == steps
    assert 0 < told.fields["strength"] <= 1


def test_masks_are_asked_for():
    graph = plain(latent_image=["10", 0], denoise=0.8)
    graph["10"] = node("SetLatentNoiseMask", samples=["11", 0], mask=["12", 1])
    graph["11"] = node("VAEEncode", pixels=["12", 0], vae=["4", 2])
    graph["12"] = node("LoadImage", image="fox.png")
    assert set(read(graph).inputs) == {"init", "mask"}


def test_a_part_of_the_path_from_nothing_is_told():
    told = read(plain(denoise=0.5))
    assert told.fields["steps"] == 20
    assert "strength" not in told.fields
    assert "a part of the path from nothing" in told.lost[0]


def test_the_nodes_of_custom_sampling():
    graph = plain()
    graph["3"] = node(
        "SamplerCustomAdvanced",
        noise=["20", 0],
        guider=["21", 0],
        sampler=["22", 0],
        sigmas=["23", 0],
        latent_image=["5", 0],
    )
    graph["20"] = node("RandomNoise", noise_seed=7)
    graph["21"] = node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=3.5)
    graph["22"] = node("KSamplerSelect", sampler_name="dpmpp_2m")
    graph["23"] = node("BasicScheduler", model=["4", 0], scheduler="karras", steps=12, denoise=1)
    told = read(graph)
    assert told.fields == {"width": 512, "height": 768, "seed": 7, "guidance_scale": 3.5} | {
        "steps": 12,
        "sampler": "dpmpp_2m",
        "spacing": "karras",
    }
    assert told.lost == ()
    graph["21"] = node("BasicGuider", model=["4", 0], conditioning=["6", 0])
    graph["22"] = node("SamplerEulerAncestral", eta=0.5, s_noise=1.1)
    graph["23"] = node("KarrasScheduler", steps=9, sigma_max=10.0, sigma_min=0.0291675, rho=7)
    told = read(graph)
    assert (told.fields["guidance_scale"], told.negative_prompt) == (1.0, "")
    assert (told.fields["sampler"], told.fields["steps"], told.options["eta"]) == ("euler_ancestral", 9, 0.5)
    said = " ".join(told.lost)
    assert "sigma_max 10 has no equivalent" in said
    assert "s_noise 1.1 has no equivalent" in said
    graph["3"] = node("SamplerCustom", add_noise=True, noise_seed=3, cfg=2, model=["4", 0], positive=["6", 0])
    graph["3"]["inputs"] |= {"sampler": ["22", 0], "sigmas": ["24", 0], "latent_image": ["5", 0], "negative": ["7", 0]}
    graph["24"] = node("SplitSigmas", sigmas=["23", 0], step=3)
    told = read(graph)
    assert (told.fields["seed"], told.fields["guidance_scale"], told.negative_prompt) == (3, 2.0, "text, watermark")
    assert "SplitSigmas" in " ".join(told.lost)


def test_of_several_passes_the_first_is_made():
    graph = plain()
    graph["10"] = node("LatentUpscale", samples=["3", 0], width=1024, height=1536, upscale_method="bislerp")
    graph["11"] = node("KSampler", **plain()["3"]["inputs"] | {"latent_image": ["10", 0], "denoise": 0.5, "steps": 14})
    graph["8"]["inputs"]["samples"] = ["11", 0]
    graph["12"] = node("FaceDetailer", image=["8", 0], steps=10, cfg=4, sampler_name="euler", scheduler="normal")
    graph["13"] = node("ImageUpscaleWithModel", image=["12", 0], upscale_model=["14", 0])
    graph["14"] = node("UpscaleModelLoader", model_name="4x.pth")
    graph["9"]["inputs"]["images"] = ["13", 0]
    told = read(graph)
    assert told.fields["steps"] == 20
    assert (told.fields["width"], told.fields["height"]) == (512, 768)
    [sentence] = told.lost
    for part in ("LatentUpscale (node 10)", "KSampler (node 11)", "FaceDetailer", "ImageUpscaleWithModel"):
        assert part in sentence


def test_a_refiner_is_told():
    advanced = {name: value for name, value in plain()["3"]["inputs"].items() if name not in ("seed", "denoise")}
    advanced |= {"noise_seed": 5, "add_noise": "enable", "start_at_step": 0, "end_at_step": 16}
    graph = plain()
    graph["3"] = node("KSamplerAdvanced", **advanced)
    graph["10"] = node("KSamplerAdvanced", **advanced | {"start_at_step": 16, "latent_image": ["3", 0]})
    graph["8"]["inputs"]["samples"] = ["10", 0]
    told = read(graph)
    assert (told.fields["seed"], told.fields["steps"]) == (5, 20)
    said = " ".join(told.lost)
    assert "it ends at step 16 of 20" in said
    assert "KSamplerAdvanced (node 10): what comes after" in said


def test_values_and_links_through_other_nodes():
    graph = plain(seed=["30", 0], steps=["31", 0], positive=["32", 0], cfg=["33", 0], latent_image=["35", 0])
    graph["30"] = node("Seed (rgthree)", seed=11)
    graph["31"] = node("PrimitiveInt", value=9)
    graph["32"] = node("Reroute", **{"": ["6", 0]})
    graph["33"] = node("PrimitiveNode", odd=4.5)
    graph["34"] = node("PrimitiveStringMultiline", value="a fox")
    graph["35"] = node("RepeatLatentBatch", samples=["5", 0], amount=2)
    graph["6"]["inputs"]["text"] = ["36", 0]
    graph["36"] = node("ShowText|pysssh", text=["34", 0])
    told = read(graph)
    assert told.prompt == "a fox"
    assert (told.fields["seed"], told.fields["steps"], told.fields["guidance_scale"]) == (11, 9, 4.5)
    assert told.fields["count"] == 2
    assert "which of them this is" in told.lost[0]


def test_prompts_of_two_towers_and_what_changes_prompts():
    graph = plain(negative=["41", 0])
    graph["6"] = node("CLIPTextEncodeSDXL", text_g="a fox", text_l="a hat", width=1024, height=1024, clip=["4", 1])
    knobs = {"strength": 0.7, "start_percent": 0.1, "end_percent": 0.9, "image": ["45", 0]}
    graph["40"] = node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], control_net=["44", 0], **knobs)
    graph["45"] = node("LoadImage", image="edges.png")
    graph["44"] = node("ControlNetLoader", control_net_name="canny")
    graph["41"] = node("ConditioningZeroOut", conditioning=["6", 0])
    graph["3"]["inputs"]["positive"] = ["40", 0]
    told = read(graph)
    assert (told.prompt, told.negative_prompt) == ("a fox", "")
    said = " ".join(told.lost)
    assert told.hints == (Hint("canny", "the file edges.png", 0.7, 0.1, 0.9),)
    assert "'a hat'" in said
    assert "zeros there" in said


def test_what_is_not_known_is_told():
    graph = plain(seed=["50", 0], sampler_name="res_2s", scheduler="bong_tangent", steps=["99", 0], model=["51", 0])
    graph["50"] = node("Mystery", a=1, b=2)
    graph["51"] = node("Mystery Loader", thing="x")
    told = read(graph)
    said = " ".join(told.lost)
    for part in ("seed: it comes from a node", "steps: it comes from a node", "'res_2s'", "'bong_tangent'"):
        assert part in said
    assert "Mystery Loader (node 51)" in said
    assert told.model == ""


def test_pictures_that_were_only_looked_at_are_not_what_was_saved():
    graph = plain()
    graph["60"] = node("PreviewImage", images=["61", 0])
    graph["61"] = node("VAEDecode", samples=["62", 0])
    graph["62"] = node("KSampler", **plain()["3"]["inputs"] | {"seed": 1})
    assert read(graph).fields["seed"] == SEED % 2**32
    del graph["9"]
    assert read(graph).fields["seed"] == 1
    del graph["60"]
    assert read(graph).fields["seed"] == SEED % 2**32


CYCLES = [
    {"3": {"latent_image": ["3", 0]}},
    {"3": {"latent_image": ["8", 0]}},
    {"3": {"model": ["10", 0], "seed": ["10", 0], "positive": ["10", 0], "negative": ["10", 0]}},
    {"3": {"sigmas": ["10", 0], "guider": ["11", 0], "noise": ["11", 0], "sampler": ["10", 0]}},
    {"6": {"text": ["6", 0], "clip": ["6", 0]}},
    {"6": {"text": ["11", 0]}},
]


@pytest.mark.parametrize("changes", CYCLES)
def test_cycles_end(changes):
    graph = plain()
    graph["10"] = node("Reroute", model=["11", 0], sigmas=["11", 0])
    graph["11"] = node("Reroute", value=["10", 0], text=["10", 0])
    for name, inputs in changes.items():
        graph[name]["inputs"] |= inputs
    assert read(graph).program == "ComfyUI"


def test_long_chains_end_soon():
    graph = plain(latent_image=["100", 0])
    inputs = plain()["3"]["inputs"]
    for n in range(100, 5000):
        graph[str(n)] = node("KSampler", **inputs | {"latent_image": [str(n + 1), 0], "seed": n})
    assert read(graph).fields["seed"] == 4999
    with pytest.raises(FileProblem, match="at most 10000"):
        read({str(n): {} for n in range(10_001)})


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "1", "null", "{}", '{"1": 2}', '{"1": {"class_type": 1, "inputs": []}}', "[" * 100_000),
        *('{"1": {"class_type": "SaveImage", "inputs": {}}}', '{"last_node_id": 9, "nodes": [], "links": []}'),
    ],
)
def test_other_texts_are_no_recipe(text):
    with pytest.raises(NoRecipe):
        comfy.read(text, "x")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
LINKS = st.tuples(st.integers(1, 14).map(str), st.integers(0, 2)).map(list)
NAMES = sorted({name for entry in plain().values() for name in entry["inputs"]})
MORE = ["sigmas", "guider", "noise", "sampler", "mask", "eta", "start_at_step", "end_at_step", "stop_at_clip_layer"]
NODES = st.builds(
    lambda kind, inputs: {"class_type": kind, "inputs": inputs},
    st.sampled_from(["KSampler", "SamplerCustomAdvanced", "Reroute", "LoraLoader", "VAEEncode", "LoadImage", "X"]),
    st.dictionaries(st.sampled_from([*NAMES, *MORE, "pixels", "lora_name", "value"]), LINKS | VALUES, max_size=8),
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.integers(1, 14).map(str), NODES | VALUES, max_size=8), st.booleans())
def test_any_graph_is_read_or_refused(changes, whole):
    try:
        told = read((plain() if whole else {}) | changes)
    except FileProblem:
        return
    json.dumps(foreign.described(told), allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    with pytest.raises(FileProblem):
        foreign.read({"prompt": text, "parameters": text}, "x")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_texts_of_every_file(kind, tmp_path):
    from PIL.PngImagePlugin import PngInfo

    from triptych import media

    info, block, text = PngInfo(), Image.Exif(), json.dumps(plain())
    info.add_text("prompt", text)
    block[0x0110] = f"prompt:{text}"
    path = tmp_path / "x"
    Image.new("RGB", (8, 8)).save(path, kind, **({"pnginfo": info} if kind == "PNG" else {"exif": block}))
    assert foreign.read(media.read_texts(path.read_bytes(), "x"), "x") == read(plain())


def test_parameters_are_read_where_the_graph_says_nothing():
    parameters = "a cat\nSteps: 1, Sampler: Euler, CFG scale: 2, Seed: 2, Size: 8x8, Version: ComfyUI"
    told = foreign.read({"prompt": "{}", "parameters": parameters}, "x")
    assert (told.prompt, told.program) == ("a cat", "ComfyUI")
