"""Names, shapes and counts of FLUX.1 at full size, without memory, beside diffusers; what its files are told to be."""

import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from diffusers import FluxControlNetModel, FluxTransformer2DModel
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from test_recognise import sparse, under

from triptych.engine.nets.flux import DEV, FILL, SCHNELL, STRUCTURE, Flux
from triptych.engine.nets.flux_control import FluxControl
from triptych.weights.files import open_bundle
from triptych.weights.layouts import gathered
from triptych.weights.layouts.flux import control_xlabs, diffusers, original, prefixed
from triptych.weights.recognise import recognise

pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed. is deprecated:FutureWarning")

# by name: shape, parameters and tensors in the authors' file
NETWORKS = {
    "dev": (DEV, 11_901_408_320, 780),
    "schnell": (SCHNELL, 11_891_178_560, 776),
    "fill": (FILL, 11_902_391_360, 780),
    "structure": (STRUCTURE, 11_901_604_928, 780),
}
CONTROLS = {
    "union": ({"num_layers": 5, "num_single_layers": 10, "guidance_embeds": True, "num_mode": 10}, {"kinds": 10}),
    "plain": ({"num_layers": 6, "num_single_layers": 0, "guidance_embeds": True}, {}),
    "stem": (
        {
            "num_layers": 2,
            "num_single_layers": 0,
            "guidance_embeds": True,
            "conditioning_embedding_channels": 16,
            "patch_size": 2,
        },
        {"stem": 3},
    ),
}


def shapes(make):
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}


def count(lengths):
    return sum(torch.Size(shape).numel() for shape in lengths.values())


@cache
def ours(name):
    return shapes(lambda: Flux(NETWORKS[name][0]))


@cache
def theirs(name):
    shape = NETWORKS[name][0]
    options = {"in_channels": shape.in_channels, "out_channels": 64, "guidance_embeds": shape.guided}
    return shapes(lambda: FluxTransformer2DModel(**options))


@cache
def control(name):
    """(ours, theirs)"""
    words, options = CONTROLS[name]
    shape = replace(DEV, doubles=words["num_layers"], singles=words["num_single_layers"])
    return shapes(lambda: FluxControl(shape, **options)), shapes(lambda: FluxControlNetModel(**words))


def made(mine, others):
    """Ours out of nothing but shapes: what each source makes must have its shape, and all that is there be used."""
    read = []

    def empty(name):
        read.append(name)
        return torch.empty(others[name], device="meta")

    found = gathered(diffusers(mine), mine, empty)
    assert sorted(read) == sorted(others)
    return {name: tuple(tensor.shape) for name, tensor in found.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_of_diffusers_is_part_of_one_of_ours(name):
    mine, others = ours(name), theirs(name)
    assert made(mine, others) == mine
    assert count(mine) == count(others) == NETWORKS[name][1]
    assert len(mine) == NETWORKS[name][2]


@pytest.mark.parametrize("name", CONTROLS)
def test_every_tensor_of_the_controlnets_of_diffusers(name):
    mine, others = control(name)
    assert made(mine, others) == mine
    assert count(mine) == count(others)


def test_the_single_file_and_the_folder_hold_the_same_numbers():
    """By diffusers' own converter; it counts on full width, so that rows are many and columns few."""
    mine = {
        name: shape[:1] + (3,) * (len(shape) - 1)
        for name, shape in shapes(lambda: Flux(replace(DEV, doubles=2, singles=2))).items()
    }
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in mine.items()}
    for prefix in ("", "model.diffusion_model."):
        file = {prefix + name: tensor for name, tensor in drawn.items()}
        single = gathered(prefixed(prefix, mine), mine, file.__getitem__)
        folder = convert_flux_transformer_checkpoint_to_diffusers(dict(file))
        joined = gathered(diffusers(mine), mine, folder.__getitem__)
        for name, tensor in drawn.items():
            assert torch.equal(single[name], tensor)
            assert torch.equal(joined[name], tensor)


def test_names_of_single_files():
    name = "double_blocks.0.img_attn.qkv.weight"
    assert original([name])[name].names == (name,)
    assert prefixed("diffusion_model.", [name])[name].names == ("diffusion_model." + name,)


def xlabs():
    """As XLabs' code names and shapes them: x-flux, src/flux/controlnet.py."""
    block = {f"double_blocks.0.{name}": shape for name, shape in shapes(lambda: Flux(DEV).double_blocks[0]).items()} | {
        "controlnet_blocks.0.weight": (3072, 3072),
        "controlnet_blocks.0.bias": (3072,),
    }
    found = {name.replace(".0.", f".{index}.", 1): shape for index in range(2) for name, shape in block.items()}
    embedders = ("img_in", "time_in", "vector_in", "guidance_in", "txt_in")
    found |= {name: shape for name, shape in ours("dev").items() if name.startswith(embedders)}
    found |= {"pos_embed_input.weight": (3072, 64), "pos_embed_input.bias": (3072,)}
    for layer in range(8):
        kernel = (16, 16 if layer else 3, 3, 3)
        found |= {f"input_hint_block.{2 * layer}.weight": kernel, f"input_hint_block.{2 * layer}.bias": (16,)}
    return found


def test_names_of_xlabs():
    mine = control("stem")[0]
    assert {source.names[0]: mine[name] for name, source in control_xlabs(mine).items()} == xlabs()


def test_no_name_of_another_network():
    with pytest.raises(KeyError, match=r"joint_blocks\.0\.x"):
        diffusers(["joint_blocks.0.x.weight"])


@pytest.fixture
def look(tmp_path):
    """What a file with these tensors is found to be."""

    def looked(lengths, metadata=None, name="x.safetensors"):
        return recognise(open_bundle(sparse(tmp_path / name, lengths, metadata)))

    return looked


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("name", NETWORKS)
def test_transformers_alone(look, name, prefix):
    found = look(under(prefix, ours(name)))
    assert (found.family, found.kind, found.variant, found.naming) == ("flux", "transformer", name, ("original",))
    assert not any(part.lacking for part in found.parts)
    assert [note for note in found.notes if "dev is assumed" in note] == list(found.notes)
    assert bool(found.notes) == (name == "dev")


@pytest.mark.parametrize("name", NETWORKS)
def test_transformers_in_the_names_of_diffusers(look, name):
    found = look(theirs(name))
    assert (found.family, found.kind, found.variant, found.naming) == ("flux", "transformer", name, ("diffusers",))
    assert not any(part.lacking for part in found.parts)


def test_kontext_is_told_by_what_it_is_called(look, tmp_path):
    for found in (
        look(ours("dev"), name="flux1-dev-kontext.safetensors"),
        look(ours("dev"), {"modelspec.title": "FLUX.1 Kontext [dev]"}),
    ):
        assert found.variant == "kontext"
        assert any("only its name or title" in note for note in found.notes)
    assert look(ours("fill"), name="kontext.safetensors").variant == "fill"
    told = {"_class_name": "FluxKontextPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    sparse(tmp_path / "a" / "transformer" / "diffusion_pytorch_model.safetensors", theirs("dev"))
    (tmp_path / "a" / "model_index.json").write_text(json.dumps(told))
    assert recognise(open_bundle(tmp_path / "a")).variant == "kontext"


def test_all_in_one(look):
    whole = under("model.diffusion_model.", ours("schnell"))
    whole |= under("text_encoders.clip_l.transformer.text_model.", {
        "embeddings.token_embedding.weight": (49408, 768),
        "encoder.layers.11.self_attn.q_proj.weight": (768, 768),
    })  # fmt: skip
    whole |= under("text_encoders.t5xxl.transformer.", {
        "encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096),
        "encoder.block.1.layer.1.DenseReluDense.wi_1.weight": (10240, 4096),
        "shared.weight": (32128, 4096),
    })  # fmt: skip
    whole |= under("vae.", {
        "decoder.conv_in.weight": (512, 16, 3, 3), "decoder.mid.block_1.conv1.weight": (512, 512, 3, 3)
    })  # fmt: skip
    found = look(whole)
    assert (found.family, found.kind, found.variant, found.missing) == ("flux", "checkpoint", "schnell", ())
    assert {part.name for part in found.parts} == {"transformer", "text_encoder", "t5", "vae"}


@pytest.mark.parametrize("name", CONTROLS)
def test_controlnets(look, name):
    found = look(control(name)[1])
    expected = ("flux", "control", "union" if name == "union" else "", ("diffusers",))
    assert (found.family, found.kind, found.variant, found.naming) == expected
    assert "variant" not in found.refusal


def test_controlnets_of_xlabs(look):
    found = look(xlabs())
    assert (found.family, found.kind, found.naming) == ("flux", "control", ("original",))


def test_another_network_with_such_blocks_is_not_flux(look):
    """HunyuanVideo, as ComfyUI names it."""
    found = look({
        "img_in.proj.weight": (3072, 16, 1, 2, 2),
        "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias": (6144,),
        "double_blocks.0.img_mod.lin.weight": (18432, 3072),
        "single_blocks.0.linear1.weight": (21504, 3072),
    })  # fmt: skip
    assert found.family == "hunyuan-video"
