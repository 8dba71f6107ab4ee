"""Stable Diffusion 3 and FLUX.1 end to end: the same folder and seed here and in diffusers' pipelines."""

import pytest
from test_sd import psnr
from tiny_flow import DIFFUSERS, KINDS, ours, saved, theirs


@pytest.fixture(scope="module", params=list(KINDS))
def both(request, tmp_path_factory):
    """The name of a card, its pipeline, and the model that is loaded from the same folder."""
    return request.param, *saved(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("size", [(64, 64), (64, 112)])
def test_text_to_picture(both, size):
    name, pipe, model = both
    height, width = size
    scale = 1.0 if name == "flux1-schnell" else 3.5
    picture = ours(model, guidance_scale=scale, height=height, width=width)
    other = theirs(pipe, guidance_scale=scale, height=height, width=width)
    assert other.std() > 0.02
    assert psnr(picture, other) > 60


def test_a_negative_prompt(both):
    name, pipe, model = both
    if name.startswith("sd3"):
        picture = ours(model, negative_prompt="a blue dog", guidance_scale=5.0)
        other = theirs(pipe, negative_prompt="a blue dog", guidance_scale=5.0)
    else:
        scale = 3.5 if name == "flux1-dev" else 1.0
        picture = ours(
            model, negative_prompt="a blue dog", guidance_scale=scale, options={**DIFFUSERS, "true_guidance": 3.0}
        )
        other = theirs(pipe, negative_prompt="a blue dog", guidance_scale=scale, true_cfg_scale=3.0)
    assert psnr(picture, other) > 60
    assert psnr(ours(model, guidance_scale=1.0), picture) < 40
