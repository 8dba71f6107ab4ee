"""The autoencoder's names in everybody's files; its tensors against diffusers' in tests/engine/test_kl.py."""

import pytest
import torch
from diffusers import AutoencoderKL

from triptych.engine.codecs.kl import FLUX, KL, SD3, SD15, SDXL
from triptych.errors import WeightsError
from triptych.weights.layouts import gathered
from triptych.weights.layouts.vae import diffusers, layout, original

LEVELS = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
BARE = {"use_quant_conv": False, "use_post_quant_conv": False}


def shapes(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def ours():
    with torch.device("meta"):
        return KL(SD15)


@pytest.mark.parametrize(
    ("setting", "options", "parameters"),
    [
        (SD15, {"latent_channels": 4}, 83_653_863),
        (SDXL, {"latent_channels": 4}, 83_653_863),
        (SD3, {"latent_channels": 16, **BARE}, 83_819_683),
        (FLUX, {"latent_channels": 16, **BARE}, 83_819_683),
    ],
    ids=["sd15", "sdxl", "sd3", "flux"],
)
def test_every_tensor_of_full_width_has_its_place_in_diffusers(setting, options, parameters):
    with torch.device("meta"):
        codec, theirs = KL(setting), AutoencoderKL(**LEVELS, **options)
    assert sum(parameter.numel() for parameter in codec.parameters()) == parameters
    assert (codec.channels, codec.scale_factor) == (options["latent_channels"], (8, 8))
    wanted, found = shapes(codec), theirs.state_dict()
    sources = layout(found)(wanted)
    assert sorted(name for source in sources.values() for name in source.names) == sorted(found)
    tensors = gathered(sources, wanted, found.__getitem__)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == wanted


def test_names_of_the_original(ours):
    """Some of those that v1-5-pruned-emaonly.safetensors has, which count levels from the finest."""
    shape = shapes(ours)
    for name, wanted in {
        "encoder.conv_in.weight": (128, 3, 3, 3),
        "encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "encoder.down.2.downsample.conv.bias": (512,),
        "encoder.mid.attn_1.q.weight": (512, 512),
        "decoder.mid.block_2.conv2.weight": (512, 512, 3, 3),
        "decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
        "decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        "decoder.norm_out.weight": (128,),
        "post_quant_conv.weight": (4, 4, 1, 1),
    }.items():
        assert shape[name] == wanted
    assert len(shape) == 248
    assert not {"encoder.down.3.downsample.conv.weight", "decoder.up.0.upsample.conv.weight"} & set(shape)


def test_names_of_diffusers_and_of_its_early_days():
    names = ["decoder.up.0.block.2.conv1.weight", "decoder.up.3.upsample.conv.bias", "encoder.mid.attn_1.proj_out.bias"]
    later = diffusers(names)
    assert [later[name].names[0] for name in names] == [
        "decoder.up_blocks.3.resnets.2.conv1.weight",
        "decoder.up_blocks.0.upsamplers.0.conv.bias",
        "encoder.mid_block.attentions.0.to_out.0.bias",
    ]
    marks = {"decoder.up_blocks.0.resnets.0.conv1.weight", "encoder.mid_block.attentions.0.query.weight"}
    early = layout(marks)(names)
    assert early[names[2]].names == ("encoder.mid_block.attentions.0.proj_attn.bias",)
    assert early[names[0]] == later[names[0]]


@pytest.mark.parametrize("prefix", ["first_stage_model.", "vae.", ""])
def test_the_prefix_is_the_files(ours, prefix):
    names = list(shapes(ours))
    file = [prefix + name for name in names] + ["model.diffusion_model.input_blocks.0.0.weight"]
    assert layout(file)(names) == original(names, prefix)
    assert {source.names[0] for source in layout(file)(names).values()} == set(file[:-1])


def test_an_autoencoder_put_into_a_full_checkpoint_later_is_not_preferred():
    mark = "decoder.up.0.block.0.conv1.weight"
    assert layout({f"vae.{mark}", f"first_stage_model.{mark}"})([mark])[mark].names == (f"first_stage_model.{mark}",)


def test_a_file_without_an_autoencoder_is_refused():
    with pytest.raises(WeightsError, match="no KL autoencoder"):
        layout({"encoder.layers.0.weight"})
