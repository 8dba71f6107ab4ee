"""What of another program's request a model takes, and what it says it does not."""

from dataclasses import replace

import pytest

from triptych import families
from triptych.engine.samplers import SAMPLERS
from triptych.foreign import Foreign, Hint, Lora, fitted, followed, names
from triptych.model import _has_eta

WALK = {
    "steps": 20,
    "guidance_scale": 7.0,
    "seed": 5,
    "width": 512,
    "height": 768,
    "sampler": "euler",
    "spacing": "karras",
}
OPTIONS = {"profile": "a1111", "clip_skip": 2}
TOLD = Foreign("AUTOMATIC1111's web UI v1.10.1", "a fox", "blur", WALK, OPTIONS, "m", "abc", lost=("before",))


def cards(name):
    return families.cards()[name]


def test_a_model_that_takes_all_of_it():
    found, lost = fitted(TOLD, cards("sd15"))
    assert found == {"negative_prompt": "blur", **WALK, **OPTIONS}
    assert lost == ("before",)


def test_a_model_that_takes_little_of_it():
    found, lost = fitted(TOLD, cards("mini-image"))
    assert found["steps"] == 20
    assert not found.keys() & {"profile", "clip_skip", "height"}
    said = " ".join(lost)
    assert "reads prompts and draws noise by rules of its own; mini-image does so by its" in said
    assert "clip_skip 2: mini-image does not take it" in said
    assert "height: 768 given" in said


def test_the_web_ui_heeds_no_clip_skip_in_larger_models():
    found, lost = fitted(TOLD, cards("sdxl"))
    assert "clip_skip" not in found
    assert "clip_skip 2: AUTOMATIC1111's web UI v1.10.1 does not heed it" in lost[-1]
    found, _ = fitted(replace(TOLD, options={"profile": "comfy", "clip_skip": 3}), cards("sdxl"))
    assert found["clip_skip"] == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 10**9},
        {"guidance_scale": 0.5},
        {"guidance_scale": 99.0},
        {"width": 513},
        {"seed": -1},
        {"count": 1000},
    ],
)
def test_what_is_out_of_range_is_left_to_the_model(changed):
    found, lost = fitted(replace(TOLD, fields=WALK | changed), cards("sd15"))
    assert not found.keys() & changed.keys()
    assert "The model's default is taken." in lost[-1]


def test_eta_goes_to_samplers_that_take_it():
    assert set(names.ETA) == {name for name, each in SAMPLERS.items() if _has_eta(each)}
    told = replace(TOLD, options={"eta": 0.5})
    assert "draws no noise" in fitted(told, cards("sd15"))[1][-1]
    told = replace(told, fields=WALK | {"sampler": "euler_ancestral"})
    assert fitted(told, cards("sd15"))[0]["eta"] == 0.5


def test_loras_are_found_by_their_names(tmp_path):
    (tmp_path / "more").mkdir()
    file = tmp_path / "more" / "ink v1.0.safetensors"
    file.touch()
    loras = (Lora("ink v1.0", 0.8, 0.5), Lora("more\\ink v1.0.safetensors", 1.0, 1.0), Lora("gone", 1.0, 1.0))
    told = replace(TOLD, loras=loras)
    found, lost = fitted(told, cards("sd15"), tmp_path)
    assert found["loras"] == f"{file}:0.8:0.5,{file}:1.0:1.0"
    assert "LoRA gone at 1: it is not laid over the model. There is no such file" in lost[-1]
    found, lost = fitted(told, cards("sd15"))
    assert "loras" not in found
    assert "--loras FOLDER" in lost[-1]
    assert "mini-image takes none" in fitted(told, cards("mini-image"), tmp_path)[1][-1]


HINTS = (Hint("canny [1]", "edges", 0.8, 0.1, 0.9), Hint("gone", "depths"), Hint("more\\pose", "a pose"))


def test_controlnets_are_found_by_their_names_and_their_hints_asked_for(tmp_path):
    for name in ("canny [1]", "pose"):
        (tmp_path / f"{name}.safetensors").touch()
    told = replace(TOLD, hints=HINTS)
    found, lost = fitted(told, cards("sd15"), tmp_path)
    assert {name: value for name, value in found.items() if name.startswith("control")} == {
        "control_net": str(tmp_path / "canny [1].safetensors"),
        "control_2_net": str(tmp_path / "pose.safetensors"),
        "control_scale": 0.8,
        "control_start": 0.1,
        "control_stop": 0.9,
        "control_2_scale": 1.0,
        "control_2_start": 0.0,
        "control_2_stop": 1.0,
    }
    assert followed(told, found) == {"control": "edges (for canny [1])", "control_2": "a pose (for more\\pose)"}
    assert lost == ("before", f"ControlNet gone: it is not run. There is no such file in {tmp_path}.")
    found, lost = fitted(told, cards("sd15"))
    assert followed(told, found) == {}
    assert "ControlNet gone: it is not run. Say where it lies: --loras FOLDER." in lost
    assert "ControlNet gone: sdxl-refiner takes none." in fitted(told, cards("sdxl-refiner"), tmp_path)[1]
    many = replace(TOLD, hints=HINTS[:1] * 4)
    assert "no more than 3" in fitted(many, cards("sd15"), tmp_path)[1][-1]
    loud = replace(TOLD, hints=(Hint("pose", "x", scale=9.0),))
    assert "control_scale: 9.0 given" in fitted(loud, cards("sd15"), tmp_path)[1][-1]


def test_what_takes_over_is_found_by_its_name(tmp_path):
    (tmp_path / "fine.safetensors").touch()
    told = replace(TOLD, refiner=("fine", 0.7))
    found, _ = fitted(told, cards("sdxl"), tmp_path)
    assert (found["refiner"], found["refiner_start"]) == (str(tmp_path / "fine.safetensors"), 0.7)
    assert "Refiner fine: the first model walks the whole path. Say where" in fitted(told, cards("sdxl"))[1][-1]
    assert "Refiner fine: sd15 takes none." in fitted(told, cards("sd15"), tmp_path)[1]


def test_steps_are_aligned_for_the_model_that_takes_them():
    told = replace(TOLD, fields=WALK | {"spacing": "align_your_steps"})
    assert fitted(told, cards("sd15"))[0]["spacing"] == "align_your_steps"
    assert fitted(told, cards("sdxl"))[0]["spacing"] == "align_your_steps_xl"


def test_a_second_walk_is_for_those_that_take_one():
    told = replace(TOLD, options={"hires": 2.0, "hires_strength": 0.5})
    assert not fitted(told, families.cards()["sd15"])[0].keys() & {"hires", "hires_strength"}  # the machine adds them
    assert "hires 2.0: sd15 does not take it." in fitted(told, cards("sd15"))[1]


def test_inputs_that_a_model_takes_none_of():
    told = replace(TOLD, inputs={"init": "the file fox.png"})
    assert fitted(told, cards("sd15"))[1] == ("before",)
    bare = replace(cards("sd15"), name="bare", fields={"prompt": cards("sd15").fields["prompt"]})
    assert "init, the file fox.png: bare takes none." in fitted(told, bare)[1]
