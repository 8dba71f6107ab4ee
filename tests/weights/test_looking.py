"""Models of the hub in their full size, told by a few of their bytes as they are told by all of them."""

import json
from dataclasses import replace

import pytest
from test_recognise import single, sparse, tower, unet, vae

from triptych import families
from triptych.errors import WeightsError
from triptych.weights import hub
from triptych.weights.files import open_bundle
from triptych.weights.recognise import recognise

PARTS = {
    "sd15": {"unet": unet("sd15"), "text_encoder": tower("l")},
    "sd15-inpainting": {"unet": unet("sd15", 9), "text_encoder": tower("l")},
    "sdxl": {"unet": unet("sdxl"), "text_encoder": tower("l"), "text_encoder_2": tower("g")},
    "sdxl-inpainting": {"unet": unet("sdxl", 9), "text_encoder": tower("l"), "text_encoder_2": tower("g")},
    "sdxl-refiner": {"unet": unet("sdxl-refiner"), "text_encoder_2": tower("g")},
}


def written(folder, parts):
    """A folder of diffusers with holes in place of numbers. Its pipeline is one that tells nothing."""
    for part, lengths in {**parts, "vae": vae()}.items():
        stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
        sparse(folder / part / f"{stem}.safetensors", lengths)
        (folder / part / "config.json").write_text("{}")
    table = {"_class_name": "DiffusionPipeline", **{part: ["library", "Kind"] for part in [*parts, "vae", "scheduler"]}}
    (folder / "model_index.json").write_text(json.dumps(table))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": "v_prediction"}))
    return folder


def serve(server, place):
    """As o/n; a file is the repository's one."""
    paths = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    root = place.parent if place.is_file() else place
    server.repositories["o/n"] = {
        path.relative_to(root).as_posix(): path if path.suffix == ".safetensors" else path.read_bytes()
        for path in paths
    }
    return sum(path.stat().st_size for path in paths)


@pytest.mark.parametrize("kind", PARTS)
def test_folders(server, tmp_path, kind):
    folder = written(tmp_path / "model", PARTS[kind])
    size = serve(server, folder)
    found = recognise(hub.look(hub.listed(hub.parse("o/n"))))
    assert replace(found, where="") == replace(recognise(open_bundle(folder)), where="")
    assert (found.prediction, found.told_by, found.refusal) == ("v", "scheduler_config.json", "")
    card = families.card("o/n")
    assert (card.name, card.settings["kind"], card.settings["source"]) == ("o/n", kind, "o/n")
    assert not any(name.endswith(".safetensors") for name in server.fetched())
    assert sum(server.sent.values()) < size / 1000


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "sdxl-refiner"])
@pytest.mark.parametrize("name", ["o/n", "o/n/model.safetensors"])
def test_files(server, tmp_path, kind, name):
    size = serve(server, sparse(tmp_path / "model.safetensors", single(kind)))
    card = families.card(name)
    assert (card.name, card.settings["kind"], card.settings["source"]) == (name, kind, name)
    assert server.fetched() == set()
    assert sum(server.sent.values()) < size / 1000


def test_what_does_not_run_here_is_told_by_its_beginning(server, tmp_path):
    serve(server, sparse(tmp_path / "model.safetensors", unet("sd2")))
    with pytest.raises(WeightsError, match="Stable Diffusion 2"):
        families.card("o/n")
    serve(server, sparse(tmp_path / "model.safetensors", unet("sdxl")))
    for known in (families._listed, families._seen):
        known.cache_clear()
    with pytest.raises(WeightsError, match="o/n lacks vae, text_encoder, text_encoder_2"):
        families.card("o/n")
    assert server.fetched() == set()
