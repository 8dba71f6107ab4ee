"""Names, shapes and counts of the transformers of Stable Diffusion 3 at full width, without memory, beside diffusers'.

The single files' names are written out here by the scheme of Stability's own code, and turned by diffusers' converter.
"""

from dataclasses import replace

import pytest
import torch
from diffusers import SD3ControlNetModel, SD3Transformer2DModel
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

from triptych.engine.nets.mmdit import SD3_MEDIUM, SD35_LARGE, SD35_MEDIUM, MMDiT, Shape
from triptych.engine.nets.mmdit_control import SD3_CONTROL, SD35_LARGE_CONTROL, ControlShape, ControlTransformer
from triptych.weights.layouts import gathered
from triptych.weights.layouts.mmdit import control_original, diffusers, mmdit_original

MEDIUM = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
LARGE = {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "pos_embed_max_size": 192,
    "qk_norm": "rms_norm",
}
BETTER = {**MEDIUM, "pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": tuple(range(13))}
STABILITY = {  # as scripts/convert_sd3_controlnet_to_diffusers.py has it
    "num_layers": 19,
    "num_attention_heads": 38,
    "joint_attention_dim": None,
    "caption_projection_dim": 2048,
    "pos_embed_max_size": None,
    "pos_embed_type": None,
    "use_pos_embed": False,
}
NETWORKS = {
    "sd3-medium": (lambda: MMDiT(SD3_MEDIUM), lambda: SD3Transformer2DModel(**MEDIUM)),
    "sd3.5-medium": (lambda: MMDiT(SD35_MEDIUM), lambda: SD3Transformer2DModel(**BETTER)),
    "sd3.5-large": (lambda: MMDiT(SD35_LARGE), lambda: SD3Transformer2DModel(**LARGE)),
    "sd3-control": (
        lambda: ControlTransformer(SD3_CONTROL),
        lambda: SD3ControlNetModel(**{**MEDIUM, "num_layers": 6}),
    ),
    "sd3-control-inpainting": (
        lambda: ControlTransformer(replace(SD3_CONTROL, trunk=replace(SD3_MEDIUM, depth=23), hint=17)),
        lambda: SD3ControlNetModel(**{**MEDIUM, "num_layers": 23, "extra_conditioning_channels": 1}),
    ),
    "sd3.5-large-control": (lambda: ControlTransformer(SD35_LARGE_CONTROL), lambda: SD3ControlNetModel(**STABILITY)),
}
TINY = Shape(depth=3, width=64, heads=1, side=4, context=8, vector=6)
VARIANTS = {
    "sd3-medium": TINY,
    "sd3.5-large": replace(TINY, normed=True),
    "sd3.5-medium": replace(TINY, normed=True, dual=2),
}


def shapes(make):
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}


COUNTS = [2_028_328_000, 2_243_171_520, 8_056_627_520]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_of_diffusers_is_one_of_ours(name):
    make, make_theirs = NETWORKS[name]
    ours, theirs = shapes(make), shapes(make_theirs)
    found = {}

    def read(part):
        found[part] = theirs[part]
        return torch.empty(theirs[part], device="meta")

    made = gathered(diffusers(ours), ours, read)
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == ours
    assert found == theirs


def test_how_many_numbers_they_have():
    with torch.device("meta"):
        counts = [sum(weight.numel() for weight in make().parameters()) for make, _ in list(NETWORKS.values())[:3]]
        theirs = [make().num_parameters() for _, make in list(NETWORKS.values())[:3]]
    assert counts == theirs == COUNTS


def recorded(shape):
    """Every name of a single file, by the scheme of Stability's code: what its classes call their parts."""
    layers = ["x_embedder.proj", "context_embedder", "final_layer.linear", "final_layer.adaLN_modulation.1"]
    layers += [f"{embedder}.mlp.{place}" for embedder in ("t_embedder", "y_embedder") for place in (0, 2)]
    norms = []
    for index in range(shape.depth):
        words, places = (f"joint_blocks.{index}.{stream}_block." for stream in ("context", "x"))
        layers += [f"{stream}{part}" for stream in (words, places) for part in ("attn.qkv", "adaLN_modulation.1")]
        layers += [f"{places}{part}" for part in ("attn.proj", "mlp.fc1", "mlp.fc2")]
        if index < shape.depth - 1:
            layers += [f"{words}{part}" for part in ("attn.proj", "mlp.fc1", "mlp.fc2")]
        if index < shape.dual:
            layers += [f"{places}attn2.qkv", f"{places}attn2.proj"]
            norms += [f"{places}attn2.ln_q.weight", f"{places}attn2.ln_k.weight"]
        if shape.normed:
            norms += [f"{stream}attn.ln_{part}.weight" for stream in (words, places) for part in "qk"]
    return ["pos_embed", *norms, *(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))]


@pytest.mark.parametrize("shape", [SD3_MEDIUM, SD35_MEDIUM, SD35_LARGE], ids=["medium", "3.5-medium", "3.5-large"])
def test_named_as_the_single_files(shape):
    ours = shapes(lambda: MMDiT(shape))
    names = {name: source.names for name, source in mmdit_original(ours).items()}
    assert names == {name: (f"model.diffusion_model.{name}",) for name in recorded(shape)}


@pytest.mark.parametrize("name", VARIANTS)
def test_both_layouts_are_the_same_network_bit_for_bit(name):
    lengths = shapes(lambda: MMDiT(VARIANTS[name]))
    file = {f"model.diffusion_model.{name}": torch.randn(shape) for name, shape in lengths.items()}
    folder = convert_sd3_transformer_checkpoint_to_diffusers(dict(file))
    read = []
    one = gathered(mmdit_original(lengths), lengths, file.__getitem__)
    other = gathered(diffusers(lengths), lengths, lambda part: read.append(part) or folder[part])
    assert sorted(read) == sorted(folder)
    assert one.keys() == other.keys() == lengths.keys()
    assert all(torch.equal(one[name], other[name]) for name in lengths)


PUBLISHED = {  # of a block of sd3.5_large_controlnet_canny.safetensors, and what is outside of blocks
    "transformer_blocks.0.adaLN_modulation.1",
    "transformer_blocks.0.attn.qkv",
    "transformer_blocks.0.attn.proj",
    "transformer_blocks.0.mlp.fc1",
    "transformer_blocks.0.mlp.fc2",
    "controlnet_blocks.0",
    "pos_embed_input.proj",
    "time_text_embed.timestep_embedder.linear_1",
    "time_text_embed.timestep_embedder.linear_2",
    "time_text_embed.text_embedder.linear_1",
    "time_text_embed.text_embedder.linear_2",
}


def test_controlnets_that_stability_published():
    shape = ControlShape(replace(TINY, depth=1), joint=False, silent=False)
    lengths = shapes(lambda: ControlTransformer(shape))
    sources = control_original(lengths)
    assert {source.names[0] for source in sources.values()} == {
        f"{layer}.{kind}" for layer in PUBLISHED for kind in ("weight", "bias")
    }
    file = {source.names[0]: torch.randn(lengths[name]) for name, source in sources.items()}
    folder = {name: tensor for name, tensor in file.items() if not name.startswith("transformer_blocks")}
    block = "transformer_blocks.0."
    for kind in ("weight", "bias"):  # as the script cuts and names them
        folder |= {
            f"{block}attn.to_{part}.{kind}": third
            for part, third in zip("qkv", file[f"{block}attn.qkv.{kind}"].chunk(3), strict=True)
        }
        for layer, theirs in [("attn.proj", "attn.to_out.0"), ("mlp.fc1", "ff.net.0.proj"), ("mlp.fc2", "ff.net.2")]:
            folder[f"{block}{theirs}.{kind}"] = file[f"{block}{layer}.{kind}"]
        folder[f"{block}norm1.linear.{kind}"] = file[f"{block}adaLN_modulation.1.{kind}"]
    one = gathered(sources, lengths, file.__getitem__)
    other = gathered(diffusers(lengths), lengths, folder.__getitem__)
    assert all(torch.equal(one[name], other[name]) for name in lengths)


def test_no_name_of_another_network():
    with pytest.raises(KeyError, match="model_ema"):
        diffusers(["model_ema.decay"])
