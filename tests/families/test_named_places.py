"""Models that are named by where their weights lie."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from triptych import families
from triptych.errors import FileProblem, InvalidField, UnknownName, WeightsError
from triptych.weights import hub


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


def test_a_name_of_the_hub_is_fetched_once(folder, monkeypatch):
    asked = []

    def fetch(reference, variant=None):
        asked.append(str(reference))
        return SimpleNamespace(path=folder)

    monkeypatch.setattr(hub, "fetch", fetch)
    families._fetched.cache_clear()
    card = families.card("somebody/something")
    assert (card.name, card.settings["source"]) == ("somebody/something", "somebody/something")
    assert families.place(card.settings["source"]) == folder
    assert asked == ["somebody/something"]
    families._fetched.cache_clear()
