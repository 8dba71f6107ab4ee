"""Stable Diffusion 3 and FLUX.1 out of every layout of files that people have: weights and picture are the folder's."""

import shutil

import numpy as np
import pytest
import torch
from diffusers.loaders import single_file_utils as diffusers_files
from flow_files import KINDS, apart, held, is_sd3, joined, original, saved, small, theirs, written  # noqa: F401
from PIL import Image

from triptych import families
from triptych.media import read_recipe
from triptych.model import prepared
from triptych.types import Request

ASKED = ("--size", "64x64", "--steps", 2, "--seed", 7, "--dtype", "float32")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each kind's folder, written once."""
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = written(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


@pytest.fixture
def make(small, ask):  # noqa: F811
    """Makes a picture of a model: its pixels, and what was told."""

    def made(model, out="out.png", *more, **options):
        named = [word for name, value in options.items() for word in ("--option", f"{name}={value}")]
        code, told = ask("make", "a red fox", "--model", model, *ASKED, *named, *more, "-o", out)
        assert code == 0, told
        return Image.open(told["files"][0]).tobytes(), told

    return made


@pytest.fixture
def refused(small, ask):  # noqa: F811
    """What is told of a request that fails."""

    def told(model, *more, **options):
        named = [word for name, value in options.items() for word in ("--option", f"{name}={value}")]
        code, said = ask("make", "a red fox", "--model", model, *ASKED, *named, *more, "-o", "out.png")
        assert code in (1, 2), said
        return said["error"]["message"]

    return told


def alike(one, other):
    """Within one of 255 levels: products with one row depend on where in a cache line its weights begin."""
    apart = np.frombuffer(one, np.uint8).astype(int) - np.frombuffer(other, np.uint8).astype(int)
    return np.abs(apart).max() <= 1 and (apart != 0).mean() < 0.01


def same_weights(model, options, folder):
    """To the last bit, in every part."""
    one, other = loaded(model, options), loaded(folder, {})
    return one.keys() == other.keys() and all(same(one[part], other[part]) for part in one)


def loaded(model, options):
    card = families.card(str(model))
    there = families.load(card, "cpu", "float32")
    asked = Request(card.name, "a fox", options={name: str(path) for name, path in options.items()})
    prepared(there, card.resolve(asked), {})
    return {name.split()[0]: part.come().state_dict() for name, part in there.prepare._guests._here.items()}


def files_of(parts, place):
    """Every part but the network in a file of its own, by its option."""
    names = {"clip_l": "clip_l", "clip_g": "clip_g", "t5xxl": "t5", "vae": "vae"}
    return {names[part]: saved(parts[part], place / f"{part}.safetensors") for part in parts.keys() & names.keys()}


def whole(parts, **prefixes):
    """All in one file, with what the authors' files hold beside weights."""
    scales = {f"text_encoders.{name}.logit_scale": torch.zeros(()) for name in ("clip_l", "clip_g") if name in parts}
    return joined(parts, parts, **prefixes) | scales


def without(parts, *names):
    return [name for name in parts if name not in names]


def named(folder, kind):
    """Options that name folders of diffusers."""
    clips = {"clip_l": folder / "text_encoder", "vae": folder / "vae"}
    if is_sd3(kind):
        return clips | {"clip_g": folder / "text_encoder_2", "t5": folder / "text_encoder_3"}
    return clips | {"t5": folder / "text_encoder_2"}


LAYOUTS = {
    "all in one": lambda parts, *_: (whole(parts), []),
    "all in one by ComfyUI": lambda parts, *_: (whole(parts, vae="vae."), []),
    "without T5": lambda parts, *_: (joined(parts, without(parts, "t5xxl")), ["t5"]),
    "without encoders": lambda parts, *_: (joined(parts, ["transformer", "vae"]), ["clip_l", "clip_g", "t5"]),
    "transformer alone": lambda parts, *_: (parts["transformer"], ["clip_l", "clip_g", "t5", "vae"]),
    "transformer alone with a prefix": lambda parts, *_: (
        joined(parts, ["transformer"]),
        ["clip_l", "clip_g", "t5", "vae"],
    ),
    "transformer alone with another": lambda parts, *_: (
        joined(parts, ["transformer"], transformer="diffusion_model."),
        ["clip_l", "clip_g", "t5", "vae"],
    ),
    "diffusers names in one file": lambda parts, theirs: (theirs["transformer"], ["clip_l", "clip_g", "t5", "vae"]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["sd3-medium", "flux-dev"])
def test_every_layout(folders, make, tmp_path, kind, layout):
    folder = folders(kind)
    parts = original(folder, kind)
    tensors, wanted = LAYOUTS[layout](parts, held(folder))
    place = tmp_path / "a folder"
    model = saved(tensors, place / "model.safetensors".replace("model", kind))
    options = {name: path for name, path in files_of(parts, place / "parts").items() if name in wanted}
    assert same_weights(model, options, folder)
    picture, told = make(model, **options)
    assert alike(picture, make(folder)[0])
    weights = told["recipe"]["model"]["weights"]
    assert weights.keys() == {model.name, *(path.name for path in options.values())}


@pytest.mark.parametrize("kind", ["sd3.5-medium", "sd3.5-large", "flux-schnell", "flux-fill", "flux-kontext"])
def test_every_kind(folders, make, tmp_path, kind):
    folder = folders(kind)
    parts = original(folder, kind)
    expected = make(folder)[0]
    model = saved(parts["transformer"], tmp_path / f"{kind}.safetensors")
    assert families.card(str(model)).settings["kind"] == kind
    options = files_of(parts, tmp_path / "parts")
    together = saved(whole(parts), tmp_path / f"all-{kind}.safetensors")
    assert same_weights(model, options, folder)
    assert same_weights(together, {}, folder)
    assert alike(make(model, **options)[0], expected)
    assert alike(make(together)[0], expected)


@pytest.mark.parametrize("kind", ["sd3-medium", "flux-dev"])
def test_folders_of_parts(folders, make, tmp_path, kind):
    folder = folders(kind)
    expected = make(folder)[0]
    alone = apart(folder, tmp_path / "alone" / "network")
    assert alike(make(alone, **named(folder, kind))[0], expected)
    assert alike(make(alone, **dict.fromkeys(named(folder, kind), folder))[0], expected)
    assert alike(make(alone / "diffusion_pytorch_model.safetensors", **named(folder, kind))[0], expected)


def test_without_t5(folders, make, tmp_path):
    folder = folders("sd3-medium")
    parts = original(folder, "sd3-medium")
    model = saved(joined(parts, without(parts, "t5xxl")), tmp_path / "sd3.safetensors")
    picture = make(model, t5="none")[0]
    assert alike(picture, make(folder, t5="none")[0])
    assert not alike(picture, make(folder)[0])


@pytest.mark.parametrize("kind", ["sd3.5-medium", "flux-dev"])
def test_what_is_written_here_is_what_diffusers_reads(folders, kind):
    folder = folders(kind)
    parts, expected = original(folder, kind), theirs(folder)
    if is_sd3(kind):  # that of FLUX.1 knows one size alone; tests/weights/test_flux_layout.py has it
        converted = diffusers_files.convert_sd3_transformer_checkpoint_to_diffusers(joined(parts, ["transformer"]))
        assert same(converted, expected["transformer"])
    config = {"down_block_types": [""] * 4, "up_block_types": [""] * 4, "layers_per_block": 1}
    codec = diffusers_files.convert_ldm_vae_checkpoint(joined(parts, ["vae"]), config)
    assert same(codec, expected["vae"])
    t5 = diffusers_files.convert_sd3_t5_checkpoint_to_diffusers(joined(parts, ["t5xxl"]))
    assert same(t5, expected["text_encoder_3" if is_sd3(kind) else "text_encoder_2"])


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def tree(parts, place, kind="flux-dev"):
    """ComfyUI's folders."""
    model = saved(parts["transformer"], place / "models" / "diffusion_models" / "mine" / f"{kind}.safetensors")
    for name in without(parts, "transformer", "vae"):
        saved(parts[name], place / "models" / ("clip" if name == "clip_l" else "text_encoders") / f"{name}.safetensors")
    saved(parts["vae"], place / "models" / "vae" / "flux" / "ae.safetensors")
    return model


def test_parts_in_a_tree_are_found_and_told(folders, make, ask, tmp_path):
    folder = folders("flux-dev")
    parts = original(folder, "flux-dev")
    model = tree(parts, tmp_path)
    saved({"a": torch.zeros(2)}, tmp_path / "models" / "vae" / "other.safetensors")
    (tmp_path / "models" / "vae" / "broken.safetensors").write_bytes(b"<html>")
    picture, told = make(model)
    assert alike(picture, make(folder, "folder.png")[0])
    models = tmp_path / "models"
    found = {
        "clip_l": models / "clip" / "clip_l.safetensors",
        "t5": models / "text_encoders" / "t5xxl.safetensors",
        "vae": models / "vae" / "flux" / "ae.safetensors",
    }
    assert told["warnings"] == [
        f"{name}: taken from {path}, which lies beside the network" for name, path in found.items()
    ]
    assert {name: told["recipe"]["request"]["options"][name] for name in found} == {n: str(p) for n, p in found.items()}
    again, once_more = ask("again", "out.png", "-o", "again.png")
    assert (again, once_more["warnings"]) == (0, [])
    assert Image.open("again.png").tobytes() == picture


def test_parts_of_which_there_are_several_or_none(folders, refused, make, tmp_path):
    parts = original(folders("flux-dev"), "flux-dev")
    model = tree(parts, tmp_path)
    texts = tmp_path / "models" / "text_encoders"
    second = texts / "t5xxl_fp8.safetensors"
    shutil.copy(texts / "t5xxl.safetensors", second)
    told = refused(model)
    assert f"lacks t5. t5 may be {texts / 't5xxl.safetensors'} or {second}." in told
    assert told.endswith("Name what has it: --option t5=PATH.")
    make(model, t5=second)
    shutil.rmtree(texts)
    told = refused(model)
    assert "lacks t5. None lies in" in told
    assert str(tmp_path / "models" / "clip") in told
    alone = saved(parts["transformer"], tmp_path / "elsewhere" / "deep" / "flux.safetensors")
    told = refused(alone, t5=second)
    assert "there is no file" in told or "lacks clip_l, vae" in told


def test_what_can_be_done_without_is_said(folders, refused, tmp_path):
    parts = original(folders("sd3-medium"), "sd3-medium")
    model = saved(joined(parts, without(parts, "t5xxl")), tmp_path / "alone" / "sd3.safetensors")
    assert refused(model).endswith("Name what has it: --option t5=PATH. Or do without: --option t5=none.")
    model = saved(joined(parts, ["transformer", "vae"]), tmp_path / "bare" / "sd3.safetensors")
    told = refused(model, t5="none")
    assert "lacks clip_l, clip_g." in told
    assert "--option clip_l=PATH --option clip_g=PATH" in told
    assert "none" not in told


WRONG = [("clip_l", "t5xxl", "t5"), ("clip_g", "clip_l", "text_encoder"), ("t5", "vae", "vae"),
         ("vae", "clip_g", "text_encoder_2"), ("t5", "transformer", "transformer")]  # fmt: skip


@pytest.mark.parametrize(("option", "given", "part"), WRONG)
def test_a_wrong_file_for_a_part_is_told(folders, refused, tmp_path, option, given, part):
    parts = original(folders("sd3-medium"), "sd3-medium")
    model = saved(whole(parts), tmp_path / "sd3.safetensors")
    path = saved(parts[given], tmp_path / "wrong" / "part.safetensors")
    told = refused(model, **{option: path})
    assert told.startswith(f"{path} has no {option} but {part} of Stable Diffusion")
    assert told.endswith(f"Name a file or folder that has it: --option {option}=PATH.")


def test_round_trip(folders, make, ask, tmp_path):
    parts = original(folders("sd3-medium"), "sd3-medium")
    model = saved(parts["transformer"], tmp_path / "sd3.safetensors")
    options = files_of(parts, tmp_path / "parts")
    picture = make(model, **options)[0]
    recipe = read_recipe((tmp_path / "work" / "out.png").read_bytes(), "out.png")
    assert recipe["model"]["weights"].keys() == {"sd3.safetensors", *(path.name for path in options.values())}
    assert {recipe["request"]["options"][name] for name in options} == set(map(str, options.values()))
    code, again = ask("again", "out.png", "-o", "again.png")
    assert (code, again["warnings"]) == (0, [])
    assert Image.open("again.png").tobytes() == picture
    moved = options["t5"].rename(tmp_path / "elsewhere.safetensors")
    code, problem = ask("again", "out.png", "-o", "again.png")
    assert (code, problem["error"]["kind"]) == (2, "FileProblem")
    assert f"there is no file {options['t5']}" in problem["error"]["message"]
    code, again = ask("again", "out.png", "--option", f"t5={moved}", "-o", "again.png")
    assert code == 0
    assert Image.open("again.png").tobytes() == picture
    moved.rename(options["t5"])
    lively = {name: value * 1.01 for name, value in parts["clip_l"].items()}
    saved(lively, options["clip_l"])
    families._given.cache_clear()  # as in another process
    code, again = ask("again", "out.png", "-o", "again.png")
    assert code == 0
    assert any(warning.startswith("model was") for warning in again["warnings"])


def test_files_of_the_same_name_are_told_apart(folders, make, tmp_path):
    folder = folders("flux-dev")
    parts = original(folder, "flux-dev")
    model = saved(parts["transformer"], tmp_path / "unet" / "model.safetensors")
    options = {name: saved(parts[part], tmp_path / name / "model.safetensors")
               for name, part in (("clip_l", "clip_l"), ("t5", "t5xxl"), ("vae", "vae"))}  # fmt: skip
    _, told = make(model, **options)
    weights = told["recipe"]["model"]["weights"]
    assert weights.keys() == {"model.safetensors", *(f"{name}/model.safetensors" for name in options)}
    assert len(set(weights.values())) == 4
