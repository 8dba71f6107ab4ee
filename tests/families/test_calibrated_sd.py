"""Stable Diffusion from a small folder of one's own: measured, bounded by that wherever it lies, merged and fast."""

import shutil

import diffusers
import pytest
import torch
from test_sd import quiet, sd15

from triptych import calibration, client
from triptych.errors import InvalidField
from triptych.families import card
from triptych.families.sd import load
from triptych.model import generate, prepared
from triptych.types import Request

GIVEN = {"steps": 6, "width": 64, "height": 64, "seed": 1, "dtype": "float32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("weights") / "small"
    with quiet():
        diffusers.StableDiffusionPipeline(**sd15()).save_pretrained(place)
    return place


def test_it_is_measured_once_and_found_again_elsewhere(folder, home, tmp_path):
    model = client.load(str(folder))
    with pytest.raises(InvalidField, match=f"triptych calibrate {folder}"):
        model.make("a red fox", max_drift=30.0, **GIVEN)
    table = calibration.calibrate(str(folder), prompts=["a fox", "a hen"], fast=[2, 3], merge=[0.5], **GIVEN)
    assert [row.options for row in table.rows] == [
        {"fast": fast, "merge": merge} for fast, merge in ((1, 0.5), (2, 0), (2, 0.5), (3, 0), (3, 0.5))
    ]
    assert all(row.kept < 100 for row in table.rows)
    moved = client.load(str(shutil.copytree(folder, tmp_path / "moved")))
    for bound in (0.0, *(row.kept for row in table.rows), 100.0):
        made = moved.make("a red fox", max_drift=bound, **GIVEN)
        chosen = table.fastest(bound)
        options = made.recipe["request"]["options"]
        assert {name: options[name] for name in ("fast", "merge")} == {"fast": 1, "merge": 0.0, **chosen}
        assert made.warnings == ()


def test_a_request_that_merges_leaves_nothing_for_the_next(folder):
    model = load(card(str(folder)), "cpu", "float32")

    def walked(**options):
        request = Request(model.card.name, "a red fox", seed=1, steps=6, height=64, width=64, options=options)
        request = model.card.resolve(request)
        *_, last = generate(prepared(model, request, {}), request)
        return last.x_t

    exact = walked()
    merged, both = walked(merge=0.5), walked(merge=0.5, fast=2)
    assert not torch.equal(merged, exact)
    assert not torch.equal(merged, both)
    assert torch.dist(merged, exact) < 0.5 * exact.norm()
    assert torch.equal(walked(), exact)
    assert torch.equal(walked(merge=0.5), merged)
