"""Stable Diffusion 3 and 3.5 told by headers of full size: which they are, with and without what lies beside them."""

import json
from functools import cache

import diffusers
import pytest
import transformers
from test_mmdit_layout import NETWORKS
from test_recognise import look, shapes, sparse, tower, under  # noqa: F401, a fixture

from triptych.engine.codecs import kl
from triptych.weights import networks
from triptych.weights.files import open_bundle
from triptych.weights.layouts.mmdit import control_original
from triptych.weights.recognise import recognise

MODELS = {"sd3-medium": 2_028_328_000, "sd3.5-medium": 2_243_171_520, "sd3.5-large": 8_056_627_520}
TABLES = {"sd3-medium": 192**2 * 1536, "sd3.5-medium": 384**2 * 1536, "sd3.5-large": 192**2 * 2432}
CONTROLS = {"sd3-control": "sd3-medium", "sd3-control-inpainting": "sd3-medium", "sd3.5-large-control": "sd3.5-large"}


@cache
def ours(name):
    return shapes(NETWORKS[name][0])


@cache
def theirs(name):
    return shapes(NETWORKS[name][1])


@cache
def codec():
    return shapes(lambda: kl.KL(kl.SD3))


@cache
def t5():
    config = transformers.T5Config(d_model=4096, d_ff=10240, d_kv=64, num_heads=64, num_layers=24,
                                   feed_forward_proj="gated-gelu")  # fmt: skip
    found = shapes(lambda: transformers.T5EncoderModel(config))
    return {name: shape for name, shape in found.items() if name != "encoder.embed_tokens.weight"}


def named(found):
    return "-".join([found.family, found.variant])


def single(name, *more):
    """A single file: the transformer and the codec, and text encoders where they are in it."""
    held = under("model.diffusion_model.", ours(name)) | under("first_stage_model.", codec())
    text = {"clip_l": under("text_model.", tower("l")), "clip_g": tower("g"), "t5xxl": t5()}
    for encoder in more:
        held |= under(f"text_encoders.{encoder}.transformer.", text[encoder])
        held[f"text_encoders.{encoder}.logit_scale"] = ()
    return held


@pytest.mark.parametrize("more", [(), ("clip_l", "clip_g"), ("clip_l", "clip_g", "t5xxl")], ids=len)
@pytest.mark.parametrize("name", MODELS)
def test_single_files(look, name, more):  # noqa: F811
    found = look(single(name, *more))
    text = dict(zip(("clip_l", "clip_g", "t5xxl"), ("text_encoder", "text_encoder_2", "t5"), strict=True))
    missing = tuple(part for encoder, part in text.items() if encoder not in more)
    assert (named(found), found.kind, found.missing, found.notes) == (name, "checkpoint", missing, ())
    parts = {part.name: part for part in found.parts}
    assert parts.keys() == {"transformer", "vae", *(text[encoder] for encoder in more)}
    assert parts["transformer"].parameters == MODELS[name] + TABLES[name]


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("name", MODELS)
def test_transformers_alone(look, name, prefix):  # noqa: F811
    found = look(under(prefix, ours(name)))
    assert (named(found), found.kind, found.naming) == (name, "transformer", ("original",))
    assert found.missing == ("text_encoder", "text_encoder_2", "t5", "vae")
    assert not any(part.lacking for part in found.parts)


@pytest.mark.parametrize("name", MODELS)
def test_transformers_alone_in_the_names_of_diffusers(look, name):  # noqa: F811
    found = look(theirs(name))
    assert (named(found), found.kind, found.naming) == (name, "transformer", ("diffusers",))
    assert not any(part.lacking for part in found.parts)


@pytest.mark.parametrize("name", MODELS)
def test_folders(tmp_path, name):
    index = {"transformer": ["diffusers", "SD3Transformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}
    index |= {f"text_encoder{number}": ["transformers", "T"] for number in ("", "_2", "_3")}
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline", **index}))
    codec = shapes(lambda: diffusers.AutoencoderKL(
        latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, layers_per_block=2,
        block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ))  # fmt: skip
    sparse(tmp_path / "transformer" / "diffusion_pytorch_model.safetensors", theirs(name))
    sparse(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", codec)
    for folder, lengths in [("text_encoder", tower("l")), ("text_encoder_2", tower("g")), ("text_encoder_3", t5())]:
        sparse(tmp_path / folder / "model.safetensors", lengths)
    found = recognise(open_bundle(tmp_path))
    assert (named(found), found.kind, found.missing, found.notes) == (name, "folder", (), ())
    assert [part.name for part in found.parts] == ["transformer", "vae", "text_encoder", "text_encoder_2", "t5"]


def test_that_it_is_distilled_is_told_by_its_name(look):  # noqa: F811
    found = look(single("sd3.5-large"), name="sd3.5_large_turbo.safetensors")
    assert named(found) == "sd3.5-large"
    assert any("which no tensor tells" in note for note in found.notes)


@pytest.mark.parametrize("name", CONTROLS)
def test_controlnets(look, name):  # noqa: F811
    found = look(theirs(name))
    assert (named(found), found.kind, found.missing, found.notes) == (CONTROLS[name], "control", (), ())


def test_controlnets_in_the_names_of_stability(look):  # noqa: F811
    lengths = ours("sd3.5-large-control")
    found = look({source.names[0]: lengths[name] for name, source in control_original(lengths).items()})
    assert (named(found), found.kind, found.naming) == ("sd3.5-large", "control", ("original",))


@pytest.fixture
def made_here(monkeypatch):
    """As if their families were."""
    known = networks.families()
    here = {
        name: networks.Family(name, family.title, family.needs) if name in ("sd3", "sd3.5") else family
        for name, family in known.items()
    }
    monkeypatch.setattr(networks, "families", lambda: here)


@pytest.mark.usefixtures("made_here")
def test_what_is_refused_of_them(look):  # noqa: F811
    for name in MODELS:
        assert look(single(name)).refusal == ""
        assert look(theirs(name)).refusal == ""
    strange = look(shapes(lambda: diffusers.SD3Transformer2DModel(num_layers=1)))
    assert "1152 channels wide is not supported; medium and large are" in strange.refusal
    half = look({name: shape for name, shape in ours("sd3-medium").items() if not name.startswith("joint_blocks.2")})
    assert "lacks 94 of 491 tensors: a smaller relative, or half a file" in half.refusal
