"""Models that are named by where their weights lie."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save, save_file

from triptych import families
from triptych.errors import FileProblem, InvalidField, UnknownName, WeightsError
from triptych.types import Artifact, Request


@pytest.fixture
def folder(tmp_path):
    """A folder of diffusers that says what it is, with a network of a size that nobody publishes."""
    (tmp_path / "unet").mkdir()
    told = {"_class_name": "StableDiffusionXLPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(told))
    save_file({"conv_in.weight": torch.zeros(8, 4, 3, 3)}, tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    return tmp_path


def test_a_folder_is_what_it_says_where_its_shapes_are_unknown(folder):
    card = families.card(str(folder))
    assert card.name == str(folder)
    assert card.settings["kind"] == "sdxl"
    assert card.settings["source"] == str(folder)
    assert card.axes == families.cards()["sdxl"].axes


def test_its_recipe_tells_its_files(folder):
    told = families.fingerprint(families.card(str(folder)))
    (name, digest), = told["weights"].items()  # fmt: skip
    assert name == "unet/diffusion_pytorch_model.safetensors"
    assert digest.startswith("sampled:")


def test_files_that_a_request_adds_are_told_too(folder, tmp_path):
    path = tmp_path / "small.safetensors"
    save_file({"x": torch.ones(3)}, path)
    was = families.fingerprint(families.card(str(folder)), [path])["weights"]["small.safetensors"]
    assert was != families.fingerprint(families.card(str(folder)), [folder / "unet"])["weights"].get(path.name)
    assert was.startswith("sampled:")


def test_a_name_of_nothing_is_unknown():
    with pytest.raises(UnknownName, match="Did you mean 'sdxl'"):
        families.card("sdxll")


@pytest.mark.parametrize("name", ["a.safetensors", "/nowhere/a.ckpt"])
def test_a_file_that_is_not_there_is_told(name):
    with pytest.raises(FileProblem, match="there is no file"):
        families.card(name)


def test_a_file_of_something_else_is_told(tmp_path):
    save_file({"a.weight": torch.zeros(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="no network that is known"):
        families.card(str(tmp_path / "a.safetensors"))


def test_what_is_neither_here_nor_a_name_of_the_hub_is_told():
    with pytest.raises(InvalidField, match="owner/name"):
        families.card("a b/c d")


def served(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_name_of_the_hub_is_told_by_its_beginnings_and_fetched_once(folder, server):
    server.repositories["somebody/something"] = served(folder)
    card = families.card("somebody/something")
    assert (card.name, card.settings["source"]) == ("somebody/something", "somebody/something")
    assert replace(card, name="", settings={}) == replace(families.card(str(folder)), name="", settings={})
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (server.fetched(), server.looked()) == ({"model_index.json"}, {weights})
    place = families.place(card.settings["source"])
    assert served(place) == server.repositories["somebody/something"]
    assert server.fetched() == {"model_index.json", weights}
    server.asked.clear()
    assert families.place(card.settings["source"]) == place
    assert families.card("somebody/something") == card
    assert list(families.fetch("somebody/something")) == []
    assert server.asked == []
    assert families.fingerprint(card)["weights"] == families.fingerprint(families.card(str(folder)))["weights"]


def test_what_a_hub_has_of_something_else_is_told_before_it_is_fetched(server):
    low = {
        "unet.mid.attn.to_q.lora_A.weight": torch.zeros(4, 320),
        "unet.mid.attn.to_q.lora_B.weight": torch.zeros(320, 4),
    }
    server.repositories["o/lora"] = {"pytorch_lora_weights.safetensors": save(low)}
    with pytest.raises(WeightsError, match="o/lora is lora, which does not run here"):
        families.card("o/lora")
    server.repositories["o/other"] = {"other.safetensors": save({"a.weight": torch.zeros(2, 2)})}
    with pytest.raises(WeightsError, match=r"o/other/other\.safetensors holds no network that is known"):
        families.card("o/other/other.safetensors")
    assert server.fetched() == set()


def test_what_a_request_adds_is_named(folder):
    card = families.card(str(folder))
    assert families.sources(card, Request("sdxl", "x")) == [str(folder)]
    options = {
        "loras": "a/b:0.5, c.safetensors:1:0.25",
        "embeddings": "d.safetensors, e/f",
        "vae": "g/h",
        "refiner": "i/j",
        "control_net": "k/l",
        "control_2_net": "m/n",
    }
    request = Request("sdxl", "x", options=options, inputs={"control": Artifact("image/png", b"")})
    added = ["a/b", "c.safetensors", "g/h", "i/j", "k/l", "d.safetensors", "e/f"]
    assert families.sources(card, request) == [str(folder), *added]
    assert families.sources(families.cards()["toy"], Request("toy", "x")) == []
