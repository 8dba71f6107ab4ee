"""Files of small changes in a request to Stable Diffusion: named by an option or in the prompt, merged and live."""

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_sd import SIZE, both, quiet, sd15  # noqa: F401  # a fixture

import triptych
from triptych.errors import InvalidField, WeightsError
from triptych.families import loras
from triptych.model import decode, generate, prepared
from triptych.types import Request
from triptych.weights.lora_modes import Beside, Within


def changes(network, towers, seed=0, lengths=False):
    """A LoRA of kohya's kind for every linear layer of a network's and its towers' attention."""
    torch.manual_seed(seed)
    found = {}
    for prefix, module in {"lora_unet_": network, **towers}.items():
        for name, weight in module.named_parameters():
            if name.endswith(("to_q.weight", "to_v.weight", "q_proj.weight", "v_proj.weight")):
                key = prefix + name.removesuffix(".weight").replace(".", "_")
                found[f"{key}.lora_down.weight"] = torch.randn(4, weight.shape[1]) / 8
                found[f"{key}.lora_up.weight"] = torch.randn(weight.shape[0], 4) / 8
                if lengths:
                    found[f"{key}.dora_scale"] = torch.linspace(0.5, 2, weight.shape[0])[:, None]
    return found


def of(pipe, **more):
    towers = {"lora_te_" if len(pipe.components) < 9 else "lora_te1_": pipe.text_encoder}
    if getattr(pipe, "text_encoder_2", None) is not None:
        towers = {"lora_te1_": pipe.text_encoder, "lora_te2_": pipe.text_encoder_2}
    return changes(pipe.unet, towers, **more)


@pytest.fixture
def folder(both, tmp_path):  # noqa: F811
    _, pipe, _ = both
    (tmp_path / "style").mkdir()
    save_file(of(pipe), tmp_path / "style" / "ink v1.0.safetensors")
    save_file(of(pipe, seed=1), tmp_path / "pose.safetensors")
    save_file(of(pipe, seed=2, lengths=True), tmp_path / "dora.safetensors")
    return tmp_path


def asked(model, prompt="a red fox", negative="", **options):
    request = Request(
        model.card.name, prompt, negative_prompt=negative, seed=7, height=SIZE, width=SIZE, steps=3, options=options
    )
    return model.card.resolve(request)


def walked(model, *given, **options):
    """(the picture, what the model warns of)."""
    request = asked(model, *given, **options)
    model = prepared(model, request, {})
    *_, last = generate(model, request)
    return decode(model, last.x_t).numpy(), model.warnings


def seats(model):
    """How many layers have files beside or within them."""
    return sum(map(len, (mode._seats for mode in model.prepare._loras._modes.values() if hasattr(mode, "_seats"))))


def close(a, b, within=1e-4):
    np.testing.assert_allclose(a, b, atol=within * np.abs(b).max())


@pytest.mark.parametrize("file", ["pose", "dora"])
def test_live_is_merged_within_rounding_and_neither_outlives_its_request(both, folder, file):  # noqa: F811
    _, _, model = both
    plain, _ = walked(model)
    networks = [model.denoiser.network.network, *model.encoder.towers]
    before = [{name: value.clone() for name, value in one.state_dict().items()} for one in networks]
    told = {"loras": f"{folder / file}.safetensors:0.7"}
    merged, _ = walked(model, **told, lora_mode="merged")
    assert seats(model) == 0
    live, _ = walked(model, **told, lora_mode="live")
    assert seats(model) > 0
    for one, was in zip(networks, before, strict=True):
        now = {name.replace(".parametrizations.weight.original", ".weight"): v for name, v in one.state_dict().items()}
        assert all(torch.equal(now[name], value) for name, value in was.items())
    close(live, merged)
    assert np.abs(merged - plain).max() > 0.01
    again, _ = walked(model)
    np.testing.assert_array_equal(again, plain)
    assert seats(model) == 0
    for one, was in zip(networks, before, strict=True):
        assert list(one.state_dict()) == list(was)
        assert all(torch.equal(value, was[name]) for name, value in one.state_dict().items())
        assert not any(isinstance(hook.__self__, Beside | Within) for m in one.modules() for hook in _hooks(m))
    np.testing.assert_array_equal(walked(model, **told, lora_mode="merged")[0], merged)
    np.testing.assert_array_equal(walked(model)[0], plain)


def _hooks(module):
    return [hook for hook in module._forward_hooks.values() if hasattr(hook, "__self__")]


def test_auto_merges_where_a_second_copy_has_room(both, folder):  # noqa: F811
    _, _, model = both
    told = {"loras": f"{folder / 'pose.safetensors'}", "coding": "whole"}
    merged, _ = walked(model, **told)
    assert seats(model) == 0
    close(walked(model, **told, memory="1MB")[0], merged)
    assert seats(model) > 0
    np.testing.assert_array_equal(walked(model, **told)[0], merged)
    assert seats(model) == 0


@pytest.mark.parametrize("mode", ["merged", "live"])
def test_files_are_still_there_when_components_come_and_leave(both, folder, mode):  # noqa: F811
    _, _, model = both
    told = {"loras": f"{folder / 'pose.safetensors'}, {folder / 'dora.safetensors'}:0.5", "lora_mode": mode}
    exact, _ = walked(model, **told, coding="whole")
    plain, _ = walked(model, coding="whole")
    for _ in range(2):
        np.testing.assert_array_equal(walked(model, **told, coding="whole", memory="1MB")[0], exact)
    np.testing.assert_array_equal(walked(model, coding="whole", memory="1MB")[0], plain)


@pytest.mark.parametrize(
    ("tags", "option"),
    [
        ("<lora:pose>", "{0}/pose.safetensors"),
        ("<lora:pose:0.6>", "{0}/pose.safetensors:0.6:0.6"),
        ("<lora:pose:0.6:0.3>", "{0}/pose.safetensors:0.3:0.6"),
        ("<lora:pose:te=0:unet=0.5>", "{0}/pose.safetensors:0.5:0"),
        ("<lora:pose:1><lyco:ink v1.0:0.4>", "{0}/pose.safetensors,{0}/style/ink v1.0.safetensors:0.4:0.4"),
        ("<lora:style/ink v1.0>", "{0}/style/ink v1.0.safetensors"),
        ("<lora:{0}/pose.safetensors:0.5>", "{0}/pose.safetensors:0.5"),
    ],
)
def test_a_tag_is_the_option_and_says_nothing_to_the_towers(both, folder, tags, option):  # noqa: F811
    _, _, model = both
    tags, option = tags.format(folder), option.format(folder)
    expected, _ = walked(model, "a red fox", "", loras=option)
    for profile in ("native", "a1111"):
        request = asked(model, f"a red{tags} fox", profile=profile, lora_folder=str(folder))
        same = asked(model, profile=profile, loras=option)
        assert {str(file) for file, _ in loras.named(request)} == {file for file, _ in loras.named(same)}
    named, warnings = walked(model, f"a red{tags} fox", "", lora_folder=str(folder))
    np.testing.assert_array_equal(named, expected)
    assert warnings == ()
    assert np.abs(walked(model)[0] - expected).max() > 0.01


def test_a_tag_s_file_is_one_of_the_request_s(both, folder):  # noqa: F811
    _, _, model = both
    request = asked(model, "a fox<lora:pose>", lora_folder=str(folder), loras=f"{folder / 'dora.safetensors'}")
    told = prepared(model, request, {})
    assert [file.name for file in told.files] == ["dora.safetensors", "pose.safetensors"]
    prepared(model, asked(model), {})


@pytest.mark.parametrize("profile", ["comfy", "diffusers"])
def test_other_programs_read_a_tag_as_text(both, folder, profile):  # noqa: F811
    _, _, model = both
    prompt = "a fox<lora:pose:1>"
    told = {"profile": profile, "lora_folder": str(folder)}
    assert loras.named(asked(model, prompt, **told)) == []
    picture, warnings = walked(model, prompt, **told)
    assert warnings == ()
    assert np.abs(picture - walked(model, "a fox", **told)[0]).max() > 0.01


def test_a_tag_without_a_file_says_where_was_looked(both, folder):  # noqa: F811
    _, _, model = both
    with pytest.raises(InvalidField, match=r"<lora:gone:1>.*There is no file .*gone; .*--option lora_folder=FOLDER"):
        prepared(model, asked(model, "a<lora:gone:1>"), {})
    with pytest.raises(InvalidField, match=rf"gone\.safetensors among the 3 in {folder}"):
        prepared(model, asked(model, "a<lora:gone:1>", lora_folder=str(folder)), {})
    with pytest.raises(InvalidField, match=r"lora_folder: .* a folder that is there"):
        prepared(model, asked(model, "a<lora:gone:1>", lora_folder=str(folder / "no")), {})
    with pytest.raises(InvalidField, match=r"<lora:pose:much>.*Weights are numbers"):
        prepared(model, asked(model, "a<lora:pose:much>", lora_folder=str(folder)), {})


def test_tags_that_name_nothing_here_are_told(both):  # noqa: F811
    _, _, model = both
    picture, warnings = walked(model, "a red fox<hypernet:ink:1>", "<lora:bad:1>")
    assert warnings == (
        "<hypernet:ink:1>: networks of this kind are not read here; left out of the prompt.",
        "<lora:bad:1>: in the negative prompt this is plain text; networks are named in the prompt.",
    )
    assert not np.array_equal(picture, walked(model)[0])
    np.testing.assert_array_equal(walked(model, "a red fox<hypernet:ink:1>")[0], walked(model)[0])


# ---- through the commands -------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """A folder with a model, and beside it files for it, of which one fits in part and one not at all."""
    torch.manual_seed(0)
    with quiet():
        pipe = diffusers.StableDiffusionPipeline(**sd15())
        pipe.save_pretrained(tmp_path / "small")
    state = of(pipe)
    save_file(state | {"stranger.lora_down.weight": torch.zeros(1, 1)}, tmp_path / "partly.safetensors")
    strange = {name.replace("lora_", "other_"): value for name, value in state.items() if "lora_down" not in name}
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 1), **strange}, tmp_path / "none.safetensors")
    return tmp_path


MADE = ("--size", "64x64", "--steps", "2", "--seed", "1", "--dtype", "float32")


def test_a_file_that_fits_in_part_is_told_and_one_that_does_not_is_an_error(small, home, call):
    place = ("make", "a fox", "-m", str(small / "small"), *MADE, "-o", "x.png")
    code, _, err = call(*place, "--lora", small / "partly.safetensors")
    assert code == 0, err
    assert "partly.safetensors: 1 of " in err
    assert "stranger.lora_down.weight" in err
    code, _, err = call(*place, "--lora", small / "none.safetensors")
    assert code == 1
    assert "none.safetensors: none of its" in err


def test_the_result_carries_the_warning(small, home):
    made = triptych.load(str(small / "small")).make(
        "a fox<lora:partly:0.5>", width=64, height=64, steps=2, seed=1, dtype="float32", lora_folder=str(small)
    )
    assert any("stranger.lora_down.weight" in warning for warning in made.warnings)
    with pytest.raises(WeightsError, match="none of its"):
        triptych.load(str(small / "small")).make(
            "a fox<lora:none>", width=64, height=64, steps=2, seed=1, dtype="float32", lora_folder=str(small)
        )
