"""Stable Diffusion 3 and FLUX.1 from pictures: to start from, to make a part of anew, to see."""

from types import SimpleNamespace

import diffusers
import pytest
import torch
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from PIL import Image
from safetensors.torch import load_file, save_file
from test_sd import SIZE, gradient, lively, psnr, quiet
from tiny_flow import DIFFUSERS, WIDTH, of, ours, saved, theirs, without_deviation
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

from triptych.errors import InvalidField, WeightsError
from triptych.families.flux_redux import IDLE, SO400M, Eye, shape_in
from triptych.media.image import tensor

NATIVE = {"t5_tokens": 77}
AS_THEY_ARE = {"_auto_resize": False, "max_area": SIZE**2}

SCALES = {"sd3.5-medium": 5.0, "flux1-dev": 3.5}
TASKS = {
    "sd3.5-medium": (diffusers.StableDiffusion3Img2ImgPipeline, diffusers.StableDiffusion3InpaintPipeline),
    "flux1-dev": (diffusers.FluxImg2ImgPipeline, diffusers.FluxInpaintPipeline),
}


@pytest.fixture(scope="module", params=list(TASKS))
def both(request, tmp_path_factory):
    """The name of a card, its pipeline, and the model that is loaded from the same folder."""
    return request.param, *saved(request.param, tmp_path_factory.mktemp(request.param))


def shown(**more):
    return {"image": gradient() / 2 + 0.5, **more}


def hole():
    """(1, 1, SIZE, SIZE): 1 in the middle, on whole latents."""
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., 16:48, 24:56] = 1
    return mask


@pytest.mark.parametrize("strength", [0.25, 0.6, 0.95, 1.0])
def test_a_picture_to_start_from(both, strength):
    name, pipe, model = both
    scale = SCALES[name]
    picture = ours(model, guidance_scale=scale, strength=strength, init=gradient(), steps=7)
    other = theirs(of(TASKS[name][0], pipe), **shown(strength=strength), guidance_scale=scale, num_inference_steps=7)
    assert psnr(picture, other) > 60


def shifted(pipe, step, t, told):
    """What diffusers leaves out before it decodes what is made anew of Stable Diffusion 3: the codec's shift."""
    last = step == pipe.num_timesteps - 1
    return {"latents": told["latents"] + last * pipe.vae.config.shift_factor * pipe.vae.config.scaling_factor}


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_a_part_of_a_picture_made_anew(both, strength):
    name, pipe, model = both
    scale, mask = SCALES[name], hole()
    picture = ours(model, guidance_scale=scale, strength=strength, init=gradient(), mask=mask)
    mended = {} if name == "flux1-dev" else {"callback_on_step_end": shifted}
    pipe = of(TASKS[name][1], pipe)
    other = theirs(pipe, **shown(mask_image=mask, strength=strength), guidance_scale=scale, **mended)
    assert psnr(picture, other) > 60


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_where_a_mask_is_grey_the_picture_is_mixed(both, share):
    """By its end: so much of the init's latents, and the rest of what the network made of them."""
    name, _, model = both
    fields = {"guidance_scale": SCALES[name], "strength": 0.6, "init": gradient()}
    grey = torch.full((1, 1, SIZE, SIZE), share)
    kept, mixed, free = (ours(model, mask=mask, **fields) for mask in (0 * grey, grey, 0 * grey + 1))
    assert psnr(mixed, kept) > psnr(free, kept)
    assert psnr(mixed, free) > psnr(kept, free)
    assert psnr(free, ours(model, **fields)) > 100


@pytest.fixture(scope="module")
def fill(tmp_path_factory):
    return saved("flux1-fill", tmp_path_factory.mktemp("fill"), without_deviation)


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_fill_sees_what_is_kept(fill, strength):
    pipe, model = fill
    mask = hole()
    mask[..., 5, 7] = 0.7  # its edges are any pixels, and black or white
    mask[..., 50:, :20] = 0.3
    picture = ours(model, guidance_scale=30.0, strength=strength, init=gradient(), mask=mask)
    other = theirs(pipe, **shown(mask_image=mask, strength=strength), guidance_scale=30.0)
    assert psnr(picture, other) > 60


def test_fill_draws_all_of_a_picture_where_there_is_none(fill):
    _, model = fill
    seen = {"init": gradient(), "mask": torch.ones(1, 1, SIZE, SIZE), "strength": 1.0}
    alone, hidden = (ours(model, options=NATIVE, **more) for more in ({}, seen))
    assert psnr(alone, hidden) > 100


@pytest.fixture(scope="module")
def kontext(tmp_path_factory):
    return saved("flux1-kontext", tmp_path_factory.mktemp("kontext"))


def test_kontext_sees_the_picture_that_it_changes(kontext):
    pipe, model = kontext
    picture = ours(model, guidance_scale=2.5, init=gradient())
    other = theirs(pipe, **shown(), guidance_scale=2.5, **AS_THEY_ARE)
    assert psnr(picture, other) > 60
    assert psnr(picture, ours(model, guidance_scale=2.5)) < 40


def test_kontext_sees_pictures_of_other_sizes(kontext):
    pipe, model = kontext
    wide = gradient()[..., :48, :] / 2 + 0.5
    picture = ours(model, guidance_scale=2.5, hints={"reference": wide})
    other = theirs(pipe, image=wide, guidance_scale=2.5, **AS_THEY_ARE)
    assert psnr(picture, other) > 60
    both = ours(model, guidance_scale=2.5, init=gradient(), hints={"reference": wide, "reference_3": wide.flip(3)})
    assert psnr(picture, both) < 40


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_kontext_changes_a_part_of_a_picture(kontext, strength):
    pipe, model = kontext
    mask = hole()
    picture = ours(model, guidance_scale=2.5, strength=strength, init=gradient(), mask=mask)
    pipe = of(diffusers.FluxKontextInpaintPipeline, pipe)
    other = theirs(pipe, **shown(mask_image=mask, strength=strength), guidance_scale=2.5, **AS_THEY_ARE)
    assert psnr(picture, other) > 60


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    return saved("flux1-dev", tmp_path_factory.mktemp("dev"))


@pytest.fixture(scope="module")
def redux(tmp_path_factory):
    """A folder of FLUX.1 Redux, and its parts; as with the published tower a few samples fill no patch."""
    torch.manual_seed(1)
    config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, image_size=60, patch_size=14
    )
    parts = {
        "image_encoder": lively(SiglipVisionModel(config)),
        "feature_extractor": SiglipImageProcessorPil(size={"height": 60, "width": 60}),
        "image_embedder": lively(ReduxImageEncoder(32, WIDTH)),
    }
    with torch.no_grad():
        parts["image_embedder"].redux_down.weight *= 8  # which is heard among 512 words
    folder = tmp_path_factory.mktemp("redux")
    with quiet():
        diffusers.FluxPriorReduxPipeline(**parts).save_pretrained(folder)
    return folder, parts


def colours():
    """A picture that is wider than high."""
    x = gradient()[0] / 2 + 0.5
    bytes = (torch.cat([x, x.flip(0), 1 - x], dim=2) * 255).round().byte()
    return Image.fromarray(bytes.permute(1, 2, 0).numpy())


def test_redux_tells_a_picture(dev, redux):
    pipe, model = dev
    folder, parts = redux
    towers = {name: pipe.components[name] for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")}
    with quiet():
        prior = diffusers.FluxPriorReduxPipeline(**parts, **towers)
        told = prior(colours(), prompt="a red fox")
    hints = {"redux": tensor(colours())}
    options = {**DIFFUSERS, "t5_tokens": 512, "redux_net": str(folder)}
    picture = ours(model, guidance_scale=3.5, options=options, hints=hints)
    other = theirs(pipe, None, guidance_scale=3.5, **told)
    assert psnr(picture, other) > 60
    assert psnr(picture, ours(model, guidance_scale=3.5, options={**DIFFUSERS, "t5_tokens": 512})) < 50
    told["prompt_embeds"][:, 512:] *= 0.25
    softly = ours(model, guidance_scale=3.5, options={**options, "redux_strength": 0.25}, hints=hints)
    assert psnr(softly, theirs(pipe, None, guidance_scale=3.5, **told)) > 60
    assert psnr(softly, picture) < 58


def test_the_two_parts_of_redux_in_files_of_their_own(dev, redux, tmp_path):
    _, model = dev
    folder, _ = redux
    tower = load_file(folder / "image_encoder" / "model.safetensors")
    save_file({f"vision_model.{name}": value for name, value in tower.items()}, tmp_path / "eye.safetensors")
    words = load_file(folder / "image_embedder" / "diffusion_pytorch_model.safetensors")
    save_file(words, tmp_path / "redux.safetensors")
    hints = {"redux": tensor(colours())}
    whole = ours(model, options={"redux_net": str(folder)}, hints=hints)
    named = {"redux_net": str(tmp_path / "redux.safetensors")}
    with pytest.raises(WeightsError, match="redux_eye=PATH"):
        ours(model, options=named, hints=hints)
    apart = ours(model, options={**named, "redux_eye": str(tmp_path / "eye.safetensors")}, hints=hints)
    assert psnr(whole, apart) > 30  # a file alone does not say how many heads there are, and how large pictures
    with pytest.raises(InvalidField, match="redux_net"):
        ours(model, hints=hints)


def test_the_published_tower_is_known_by_its_shapes():
    """SigLIP so400m, 14 samples a patch, 384 along a side, as its configuration says."""
    config = SiglipVisionConfig(
        hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=384,
        patch_size=14,
    )  # fmt: skip
    with torch.device("meta"):
        tower = SiglipVisionModel(config)
    shapes = {name: tuple(value.shape) for name, value in tower.state_dict().items()}
    tensors = SimpleNamespace(shape=shapes.__getitem__, names=lambda: tuple(shapes))
    assert shape_in(tensors, {}) == shape_in(tensors, config.to_dict()) == SO400M
    with torch.device("meta"):
        ours = Eye(SO400M).state_dict()
    assert {name: tuple(value.shape) for name, value in ours.items()} == {
        name: shape for name, shape in shapes.items() if not IDLE.search(name)
    }
