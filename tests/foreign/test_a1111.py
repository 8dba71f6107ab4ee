"""What AUTOMATIC1111's web UI, Forge and SD.Next write: fields by our names, and everything else told as lost."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sd_parsers.parsers._automatic1111 import AUTOMATIC1111Parser

from triptych import families, foreign
from triptych.errors import FileProblem, NoRecipe
from triptych.foreign import a1111, infotext, names
from triptych.foreign.told import Hint, Lora

PLAIN = """a portrait of a fox, (detailed fur:1.2), [sketch:photo:0.4]
wearing a red scarf
Negative prompt: lowres, (bad anatomy),
worst quality
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 2868173, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Clip skip: 2, RNG: CPU, Version: v1.10.1"""

OLD = """cat in a hat
Steps: 30, Sampler: DPM++ SDE Karras, CFG scale: 7.5, Seed: 12, Size: 640x448, Model hash: 7460a6fa, ENSD: 31337"""

HIRES = """1girl, <lora:style:0.8> <lora:pose:0.5:0.7>, garden <hypernet:ink:1>
Negative prompt: EasyNegative
Steps: 25, Sampler: Euler a, Schedule type: Automatic, CFG scale: 5, Seed: 4294967295, Size: 512x512, \
Model hash: e6415c4892, Model: "odd, name", VAE hash: f458b5c6, VAE: kl-f8.ckpt, Denoising strength: 0.45, \
Clip skip: 2, ENSD: 31337, Hires prompt: "a, b: c", Hires upscale: 2, Hires steps: 12, Hires upscaler: Latent, \
ADetailer model: face_yolov8n.pt, ADetailer confidence: 0.3, \
ControlNet 0: "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 1, Resize Mode: Crop and Resize", \
Token merging ratio: 0.5, Variation seed: 9, Variation seed strength: 0.1, Face restoration: CodeFormer, \
TI hashes: "EasyNegative: c74b4e810b03", Lora hashes: "style: 0d6, pose: 1a", Weirdness: 11, Version: v1.9.4"""

IMG2IMG = """a fox
Steps: 20, Sampler: DDIM, CFG scale: 7, Seed: 5, Size: 512x512, Model: m, Denoising strength: 0.6, \
Mask blur: 4, Inpaint area: Only masked, Masked area padding: 32, RNG: CPU, Eta: 0.5, Version: v1.6.0"""

FORGE = """fox <lora:a b-c.v2:0.95>
Steps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 3045329758, \
Size: 832x1216, Model hash: 06f96f89f6, Model: flux_dev, Lora hashes: "a b-c.v2: de92428f6411", \
Version: f2.0.1v1.10.1-previous-561-g82eb7566, Diffusion in Low Bits: Automatic, Module 1: ae, Module 2: clip_l"""

SDNEXT = """space
Negative prompt: planet
Steps: 30, Size: 800x800, Sampler: UniPC, Seed: 1234321, CFG scale: 8.0, CFG rescale: 0.7, App: SD.Next, \
Version: 0eb4a98, Parser: a1111, Pipeline: StableDiffusionXLPipeline, Operations: txt2img, Model: xl, \
Model hash: dec85dd654"""

CIVITAI = """a dog
Steps: 25, Sampler: Euler a, CFG scale: 4, Seed: 7, Size: 832x1216, Clip skip: 2, \
Created Date: 2024-11-02T10:11:12.1234567Z, Civitai resources: [{"type":"checkpoint","modelVersionId":1,\
"modelName":"Pony, v6"},{"type":"lora","weight":0.8,"modelName":"x"}], Civitai metadata: {}"""

EXPECTED = {
    "plain": (
        PLAIN,
        {"steps": 20, "guidance_scale": 7.0, "seed": 2868173, "width": 512, "height": 768}
        | {"sampler": "dpmpp_2m", "spacing": "karras"},
        {"profile": "a1111", "clip_skip": 2, "noise": "cpu"},
        ("v1-5-pruned-emaonly", "6ce0161689", "AUTOMATIC1111's web UI v1.10.1"),
        [],
    ),
    "old": (
        OLD,
        {"steps": 30, "guidance_scale": 7.5, "seed": 12, "width": 640, "height": 448}
        | {"sampler": "dpmpp_2s_ancestral", "spacing": "karras"},
        {"profile": "a1111", "noise_delta": 31337},
        ("", "7460a6fa", "AUTOMATIC1111's web UI"),
        ["sampler 'DPM++ SDE'"],
    ),
    "hires": (
        HIRES,
        {"steps": 25, "guidance_scale": 5.0, "seed": 4294967295, "width": 512, "height": 512}
        | {"sampler": "euler_ancestral", "spacing": "linspace"},
        {"profile": "a1111", "clip_skip": 2, "hires": 2.0, "hires_strength": 0.45, "hires_steps": 26}
        | {"noise_delta": 31337, "variation_seed": 9, "variation_strength": 0.1},
        ("odd, name", "e6415c4892", "AUTOMATIC1111's web UI v1.9.4"),
        [
            *("<hypernet:ink:1>", "Hires prompt: a, b: c", "Hires upscaler: Latent", "the pixels are enlarged"),
            *("ADetailer model", "Token merging ratio: 0.5", "CodeFormer", "EasyNegative: c74b4e810b03"),
            *("VAE: kl-f8.ckpt", "Weirdness: 11: not understood here."),
        ],
    ),
    "img2img": (
        IMG2IMG,
        {"steps": 20, "guidance_scale": 7.0, "seed": 5, "width": 512, "height": 512}
        | {"sampler": "ddim", "spacing": "ddim_uniform", "strength": 0.6},
        {"profile": "a1111", "eta": 0.5, "noise": "cpu"},
        ("m", "", "AUTOMATIC1111's web UI v1.6.0"),
        ["Mask blur: 4"],
    ),
    "forge": (
        FORGE,
        {"steps": 20, "guidance_scale": 1.0, "seed": 3045329758, "width": 832, "height": 1216}
        | {"sampler": "euler", "spacing": "simple"},
        {"profile": "a1111"},
        ("flux_dev", "06f96f89f6", "Forge f2.0.1v1.10.1-previous-561-g82eb7566"),
        ["Distilled CFG Scale: 3.5", "Module 1: ae, Module 2: clip_l", "RNG: GPU"],
    ),
    "sdnext": (
        SDNEXT,
        {"steps": 30, "guidance_scale": 8.0, "seed": 1234321, "width": 800, "height": 800}
        | {"sampler": "unipc", "spacing": "linspace"},
        {"profile": "a1111", "guidance_rescale": 0.7},
        ("xl", "dec85dd654", "SD.Next 0eb4a98"),
        ["sampler 'UniPC'"],
    ),
    "civitai": (
        CIVITAI,
        {"steps": 25, "guidance_scale": 4.0, "seed": 7, "width": 832, "height": 1216}
        | {"sampler": "euler_ancestral", "spacing": "linspace"},
        {"profile": "a1111", "clip_skip": 2},
        ("", "", "AUTOMATIC1111's web UI"),
        ["Civitai resources", "RNG: GPU"],
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_fields_by_our_names(name):
    text, fields, options, (model, digest, program), lost = EXPECTED[name]
    told = a1111.read(text, "x")
    assert told.fields == fields
    assert told.options == options
    assert (told.model, told.model_hash, told.program) == (model, digest, program)
    said = "\n".join(told.lost)
    assert not [words for words in lost if words not in said]
    assert bool(told.lost) == bool(lost)


@pytest.mark.parametrize("name", EXPECTED)
def test_another_reader_finds_the_same(name):
    text, fields, _, (model, digest, _), _ = EXPECTED[name]
    [sampler] = AUTOMATIC1111Parser(True).parse({"parameters": text}).samplers
    found = sampler.parameters
    assert (int(found["steps"]), float(found["cfg_scale"])) == (fields["steps"], fields["guidance_scale"])
    assert int(found["seed"]) == fields["seed"]
    if name != "hires":  # whose model has a comma in its name, which the other reader does not take for quoted
        assert ((sampler.model.name or "") if sampler.model else "") == model
    assert ((sampler.model.hash or "") if sampler.model else "") == digest
    told = a1111.read(text, "x")
    assert told.negative_prompt == "\n".join(one.value for one in sampler.negative_prompts)
    assert told.prompt == re.sub(r"<\w+:[^>]+>", "", "".join(one.value for one in sampler.prompts)).strip()


def test_prompts_keep_their_lines():
    told = a1111.read(PLAIN, "x")
    assert told.prompt == "a portrait of a fox, (detailed fur:1.2), [sketch:photo:0.4]\nwearing a red scarf"
    assert told.negative_prompt == "lowres, (bad anatomy),\nworst quality"
    assert a1111.read(PLAIN.replace("\n", "\r\n"), "x") == told


def test_networks_leave_the_prompt():
    told = a1111.read(HIRES, "x")
    assert told.loras == (Lora("style", 0.8, 0.8), Lora("pose", 0.7, 0.5))
    assert "<" not in told.prompt
    named = a1111.read(PLAIN.replace("wearing", "<lora:x:te=0.3:unet=0.9><lyco:y>"), "x")
    assert named.loras == (Lora("x", 0.9, 0.3), Lora("y", 1.0, 1.0))


def test_prompts_joined_by_and_are_told():
    told = a1111.read("a fox :1.2 AND a hat :0.5\nSteps: 1, Sampler: Euler, CFG scale: 1, Seed: 1, RNG: CPU", "x")
    assert told.prompt == "a fox"
    assert told.lost == ("AND: prompts are not composed here; the first alone is told.",)


def test_a_second_pass_to_a_size_of_its_own_is_told():
    told = a1111.read(HIRES.replace("Hires upscale: 2", "Hires resize: 1024x1536"), "x")
    assert not [name for name in told.options if name.startswith("hires")]
    assert "Hires resize: 1024x1536" in " ".join(told.lost)
    assert "Denoising strength: 0.45" in " ".join(told.lost)
    assert "a second pass to a size of its own" in " ".join(told.lost)


def test_what_it_started_from():
    told = a1111.read(IMG2IMG, "x")
    assert set(told.inputs) == {"init", "mask"}
    assert a1111.read(HIRES, "x").inputs == {}  # the strength is that of the second pass
    assert a1111.read(IMG2IMG.replace("strength: 0.6", "strength: 0"), "x").inputs == {}


WALKS = [
    ("Sampler: DPM++ 2M", "dpmpp_2m", "linspace"),  # before 1.9 the name said all
    ("Sampler: DPM++ 2M, Schedule type: Automatic", "dpmpp_2m", "karras"),
    ("Sampler: DPM++ 2M Karras", "dpmpp_2m", "karras"),
    ("Sampler: DPM++ 3M SDE Exponential", "dpmpp_3m_sde", "exponential"),
    ("Sampler: DPM++ 2M, Schedule type: karras", "dpmpp_2m", "karras"),
    ("Sampler: Euler, Schedule type: SGM Uniform", "euler", "sgm_uniform"),
    ("Sampler: Euler, Schedule type: Beta", "euler", "beta"),
    ("Sampler: Euler, Schedule type: Normal", "euler", "linspace"),
    ("Sampler: Heun, Schedule type: Polyexponential", "heun", "exponential"),
    ("Sampler: LMS Karras", "lms", "karras"),
    ("Sampler: Euler, Schedule type: KL Optimal", "euler", "kl_optimal"),
    ("Sampler: Euler, Schedule type: Align Your Steps", "euler", "align_your_steps"),
    ("Sampler: Euler, Schedule type: Simple", "euler", "simple"),
    ("Sampler: Euler, Schedule type: DDIM", "euler", "ddim_uniform"),
    ("Sampler: DPM2 a", "dpm2_ancestral", "linspace"),
    ("Sampler: LCM, Schedule type: SGM Uniform", "lcm", "sgm_uniform"),
    ("Sampler: PLMS", "pndm", "ddim_uniform"),
]


@pytest.mark.parametrize(("said", "sampler", "spacing"), WALKS, ids=[said for said, _, _ in WALKS])
def test_samplers_and_spacings(said, sampler, spacing):
    told = a1111.read(f"x\nSteps: 20, {said}, CFG scale: 7, Seed: 1, Size: 8x8, RNG: CPU", "x")
    assert (told.fields["sampler"], told.fields["spacing"]) == (sampler, spacing)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Sampler: Restart, Schedule type: Karras", "heun"),
        ("Sampler: Spawner SMEA Dyn (beta)", "not known here; the nearest by name is taken"),
        ("Sampler: Euler, Schedule type: Turbo", "the nearest is taken, trailing"),
        ("Sampler: Euler, Schedule type: Bong Tangent", "not known here"),
        ("Sampler: Default", "the model's default is taken"),
    ],
)
def test_what_differs_is_told(said, words):
    told = a1111.read(f"x\nSteps: 20, {said}, CFG scale: 7, Seed: 1, Size: 8x8, RNG: CPU", "x")
    assert words in " ".join(told.lost)


def line(more, size="512x512"):
    return f"x\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: {size}, {more}"


@pytest.mark.parametrize("name", ["Euler a", "DPM2", "DPM2 a", "DPM++ 2S a", "DPM++ 2M SDE", "DPM++ 3M SDE", "PLMS"])
def test_what_the_profile_does_as_the_web_ui_is_not_told(name):
    assert a1111.read(line("RNG: NV").replace("Euler a", name), "x").lost == ()


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("", {}),
        ("RNG: CPU", {"noise": "cpu"}),
        ("RNG: NV", {"noise": "gpu"}),
        ("ENSD: 31337", {"noise_delta": 31337}),
        ("ENSD: 0", {}),
        ("Variation seed: 4294967297, Variation seed strength: 0.4", {"variation_seed": 1, "variation_strength": 0.4}),
        ("Seed resize from: 640x512", {"noise_size": "640x512"}),
        ("Eta DDIM: 0.3", {"eta": 0.3}),
    ],
)
def test_how_noise_is_drawn(said, options):
    told = a1111.read(line(said), "x")
    assert told.options == {"profile": "a1111", **options}
    assert told.lost == ()


def test_noise_that_hangs_on_the_card_is_told():
    assert "hangs on the card" in a1111.read(line("", "1024x1024"), "x").lost[0]
    assert a1111.read(line("RNG: NV", "1024x1024"), "x").lost == ()
    assert "not known here" in a1111.read(line("RNG: Dice"), "x").lost[0]


def test_what_controlnets_followed():
    """As sd-webui-controlnet writes its units."""
    first = "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 0.8, Resize Mode: Crop and Resize, "
    first += "Processor Res: 512, Threshold A: 100.0, Guidance Start: 0.0, Guidance End: 0.7, Control Mode: Balanced"
    second = "Module: none, Model: tile [1a2b], Weight: 1, Guidance Start: 0, Guidance End: 1, "
    second += "Control Mode: My prompt is more important"
    told = a1111.read(line(f'RNG: CPU, ControlNet 0: "{first}", ControlNet 1: "{second}"'), "x")
    canny = "what the preprocessor canny made of a picture that was not written down"
    assert told.hints == (
        Hint("control_v11p_sd15_canny", canny, 0.8, 0.0, 0.7),
        Hint("tile", "a picture that was not written down"),
    )
    assert len(told.lost) == 2
    assert "acts between shares of the steps there" in told.lost[0]
    assert "My prompt is more important" in told.lost[1]
    assert "names no ControlNet" in a1111.read(line('ControlNet 0: "Module: canny, Model: None"'), "x").lost[0]


def test_what_takes_over_on_the_way():
    said = "Refiner: sd_xl_refiner_1.0 [7440042bbd], Refiner switch at: 0.8, RNG: CPU"
    told = a1111.read(line(f"{said}, Version: v1.10.1"), "x")
    assert (told.refiner, told.lost) == (("sd_xl_refiner_1.0", 0.8), ())
    for more in ("Version: v1.9.4", "Refiner switch by sampling steps: True, Version: v1.10.1"):
        told = a1111.read(line(f"{said}, {more}"), "x")
        assert told.refiner == ("sd_xl_refiner_1.0", 0.8)
        assert "after a share of 0.8 of the steps" in told.lost[0]


def test_all_our_names_exist():
    assert {entry.ours for entry in names.SAMPLERS.values()} <= set(families.SAMPLERS)
    assert {entry.ours for entry in names.SPACINGS.values()} <= set(families.SPACINGS)
    assert set(names.DRAWING) <= set(families.SAMPLERS)
    assert set(names.HABITS) <= set(names.SAMPLERS)
    assert set(names.HABITS.values()) <= set(names.SPACINGS)


def test_numbers_that_are_none_are_told():
    told = a1111.read("x\nSteps: many, Sampler: Euler, CFG scale: nan, Seed: -1, Size: 8 by 8, RNG: CPU", "x")
    assert told.fields == {"seed": 4294967295, "sampler": "euler", "spacing": "linspace"}
    assert len(told.lost) == 2


@pytest.mark.parametrize("text", ["", "somebody's cat", "a cat, steps: 3, seed: 4, size: 5", '{"json": 1}', "\0"])
def test_other_texts_are_no_recipe(text):
    with pytest.raises(NoRecipe, match="not as AUTOMATIC1111's web UI writes"):
        a1111.read(text, "x")
    with pytest.raises(NoRecipe):
        foreign.read({}, "x")


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=400),
        st.builds(
            lambda prompt, values: (
                prompt + "\nSteps: {}, Sampler: {}, CFG scale: {}, Seed: {}, Size: {}".format(*values)
            ),
            st.text(max_size=60),
            st.lists(st.text(max_size=20), min_size=5, max_size=5),
        ),
        st.lists(st.sampled_from([*PLAIN, *'{}[]":,\\\n<>', "Steps: 1", "lora:"]), max_size=200).map("".join),
    )
)
def test_any_text_is_read_or_refused(text):
    try:
        told = foreign.read({"parameters": text}, "x")
    except FileProblem:
        return
    json.dumps(foreign.described(told), allow_nan=False)


@pytest.mark.parametrize("part", ["a:{,", "a:[,", 'a:"\\",', "a" * 79 + ",", " ", "<lora:", "\n", "Steps: 1,", "x: y,"])
def test_long_texts_take_no_long_time(part):
    text = part * (100_000 // len(part))
    infotext.parsed(text)
    infotext.parsed(text + "\nSteps: 1, Sampler: Euler, Seed: 1, Size: 8x8")


def test_every_value_comes_back_quoted_or_not():
    value = 'a, "b": c\nd'
    line = f"Steps: 1, Sampler: Euler, Seed: 1, Odd: {json.dumps(value)}, Even: plain"
    assert infotext.parsed(f"x\n{line}")[2] == {
        "Steps": "1",
        "Sampler": "Euler",
        "Seed": "1",
        "Odd": value,
        "Even": "plain",
    }


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_texts_of_every_file(kind, tmp_path):
    from PIL.PngImagePlugin import PngInfo

    from triptych import media

    info, block = PngInfo(), Image.Exif()
    info.add_itxt("parameters", PLAIN)
    block.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + PLAIN.encode("utf-16-be")
    path = tmp_path / "x"
    Image.new("RGB", (8, 8)).save(path, kind, **({"pnginfo": info} if kind == "PNG" else {"exif": block}))
    assert foreign.read(media.read_texts(path.read_bytes(), "x"), "x") == a1111.read(PLAIN, "x")
