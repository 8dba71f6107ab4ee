"""What share of a low-rank file fits, by records that are held equal to the networks themselves.

`python tests/weights/test_lora_share.py` writes the records anew.
"""

import gzip
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from test_mmdit_layout import BETTER, LARGE, MEDIUM
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

import triptych
from triptych.engine.nets import flux, mmdit
from triptych.engine.nets.ldm import LatentUNet
from triptych.engine.text import t5
from triptych.engine.text.clip import TOWERS, ClipText
from triptych.families.sd_weights import KINDS
from triptych.weights import lora_share
from triptych.weights.layouts import flux as flux_layouts
from triptych.weights.layouts import mmdit as mmdit_layouts
from triptych.weights.layouts import unet as unet_layouts
from triptych.weights.lora import target
from triptych.weights.lora_share import NETWORKS, PARTS, shares, targets


def unet(kind):
    of = KINDS[kind].shape
    return lambda: LatentUNet(of), lambda names: unet_layouts.diffusers(names, of.blocks)


BUILT = {
    "unet-sd15": unet("sd15"),
    "unet-sdxl": unet("sdxl"),
    "unet-refiner": unet("sdxl-refiner"),
    "sd3-medium": (lambda: mmdit.MMDiT(mmdit.SD3_MEDIUM), mmdit_layouts.diffusers),
    "sd3.5-large": (lambda: mmdit.MMDiT(mmdit.SD35_LARGE), mmdit_layouts.diffusers),
    "sd3.5-medium": (lambda: mmdit.MMDiT(mmdit.SD35_MEDIUM), mmdit_layouts.diffusers),
    "flux": (lambda: flux.Flux(flux.DEV), flux_layouts.diffusers),
    "clip-l": (lambda: ClipText(**TOWERS["vit-l"]), lambda names: {}),
    "clip-l-projected": (lambda: ClipText(**TOWERS["vit-l"], projected=768), lambda names: {}),
    "clip-bigg": (lambda: ClipText(**TOWERS["vit-bigg"]), lambda names: {}),
    "t5-xxl": (lambda: t5.T5Text(**t5.TOWERS["t5-xxl"]), lambda names: {}),
}


def target_of(build, layout, prefixes=()):
    with torch.device("meta"):
        module = build()
    return target(module, prefixes, layout([name for name, _ in module.named_parameters()]))


def recorded():
    """The text of the records, from the networks."""
    lines = []
    for network in NETWORKS:
        found = target_of(*BUILT[network])
        others = {}
        for theirs, place in found.aliases.items():
            runs = ",".join(f"{start}:{stop}" for start, stop in place.runs)
            others.setdefault(place.module, []).append(f"{theirs}@{runs}" if runs else theirs)
        lines.append(f"# {network}")
        for name, shape in found.shapes.items():
            lines.append(" ".join([name, ",".join(map(str, shape)), *others.pop(name.rpartition(".")[0], ())]))
        assert not others
    return "\n".join(lines) + "\n"


pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed. is deprecated:FutureWarning")
PLACE = Path(triptych.__file__).parent / "weights" / lora_share.RECORD


def test_the_records_are_the_networks():
    assert gzip.decompress(PLACE.read_bytes()).decode() == recorded()


@pytest.mark.parametrize("kind", ["sd15", "sd15-inpainting", "sdxl", "sdxl-inpainting", "sdxl-refiner"])
def test_what_is_told_of_a_family_is_what_a_loaded_model_takes(kind):
    family, _, variant = kind.partition("-") if kind != "sdxl-refiner" else (kind, "", "")
    found, of = targets(family, variant), KINDS[kind]
    theirs = {"unet": unet(kind)}
    theirs |= {one.folder: (lambda one=one: ClipText(**one.tower), lambda names: {}) for one in of.towers}
    assert found.keys() == theirs.keys()
    for name, made in theirs.items():
        ours = target_of(*made, found[name].prefixes)
        assert (found[name].shapes, found[name].spellings()) == (ours.shapes, ours.spellings())


def test_what_is_told_of_the_fill_variant_of_flux():
    ours = target_of(lambda: flux.Flux(flux.FILL), flux_layouts.diffusers)
    found = targets("flux", "fill")["transformer"]
    assert (found.shapes, found.spellings()) == (ours.shapes, ours.spellings())


# ---- files as others write them, by the modules that their networks have --------------------------------------------


@pytest.fixture(scope="module")
def theirs():
    """diffusers' and transformers' modules of SD 1.5, on no device."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        text = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                                            num_attention_heads=12))  # fmt: skip
    return {"unet": unet, "text": text}


def weights(module, kinds=nn.Linear, within=""):
    return {
        name: tuple(one.weight.shape)
        for name, one in module.named_modules()
        if isinstance(one, kinds) and within in name
    }


ROLES = {
    "LoRA": lambda o, i: {"lora_down.weight": (16, i), "lora_up.weight": (o, 16), "alpha": ()},
    "LoRA with DoRA": lambda o, i: {"lora_down.weight": (16, i), "lora_up.weight": (o, 16), "dora_scale": (o, 1)},
    "LoHa": lambda o, i: {"hada_w1_a": (o, 8), "hada_w1_b": (8, i), "hada_w2_a": (o, 8), "hada_w2_b": (8, i)},
    "LoKr": lambda o, i: {"lokr_w1": (8, 8), "lokr_w2_a": (o // 8, 4), "lokr_w2_b": (4, i // 8), "alpha": ()},
}


def attention(theirs, roles=ROLES["LoRA"]):
    """What kohya's scripts train by default: the linear layers of the transformers and of the text tower."""
    found = {}
    text = weights(theirs["text"])
    unet = weights(theirs["unet"], (nn.Linear, nn.Conv2d), "attentions")
    for prefix, modules in {"lora_unet_": unet, "lora_te_text_model_": text}.items():
        for name, (rows, columns, *_) in modules.items():
            key = prefix + name.replace("text_model.", "").replace(".", "_")
            found |= {f"{key}.{role}": shape for role, shape in roles(rows, columns).items()}
    return found


@pytest.mark.parametrize("kind", ROLES)
def test_kohya_s_keys(kind, theirs):
    file = attention(theirs, ROLES[kind])
    [share] = shares(file, ["sd15"])
    assert share.matching == {"unet": 192, "text_encoder": 72}  # as many as kohya's scripts say that they make
    matching = "Stable Diffusion 1.x: 264 of 264 keys match (192 U-Net, 72 text encoder)"
    assert share.sentence == f"{matching}, {len(file)} of {len(file)} tensors; lacks nothing"


@pytest.mark.parametrize("roles", [("lora_A.weight", "lora_B.weight"), ("lora.down.weight", "lora.up.weight")])
def test_keys_of_peft_and_diffusers(roles, theirs):
    file = {}
    for name, (rows, columns, *kernel) in weights(theirs["unet"], (nn.Linear, nn.Conv2d)).items():
        file |= {f"unet.{name}.{roles[0]}": (4, columns, *kernel), f"unet.{name}.{roles[1]}": (rows, 4)}
    [share] = shares(file, ["sd15"])
    assert share.matching["unet"] == share.keys == len(file) // 2
    assert (share.used, share.unmatched, share.misfits, share.lacking, share.strange) == (len(file), (), (), (), ())


def test_what_does_not_match_is_named(theirs):
    file = attention(theirs)
    gone = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    wide = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    del file[f"{gone}.lora_up.weight"]
    file[f"{wide}.lora_down.weight"] = (16, 2048)
    file |= {f"lora_unet_fifth_{n}.{role}": shape for n in range(6) for role, shape in ROLES["LoRA"](8, 8).items()}
    file["bundle_emb.x"] = (2, 768)
    [share] = shares(file, ["sd15"])
    assert (share.keys, share.matching) == (270, {"unet": 190, "text_encoder": 72})
    assert (share.tensors, share.used) == (len(file), 262 * 3)
    assert share.unmatched == tuple(f"lora_unet_fifth_{n}" for n in range(6))
    assert share.lacking == (gone,)
    [misfit] = share.misfits
    assert "attn2.to_k.weight is (320, 768) in this model and (320, 2048) in the file" in misfit
    assert share.sentence.endswith(
        "; not there: lora_unet_fifth_0, lora_unet_fifth_1, lora_unet_fifth_2, lora_unet_fifth_3, ... 2 more"
        f"; of another shape: {misfit}; lacks factors: {gone}; no part of a change: bundle_emb.x"
    )
    assert share.told()["unmatched"] == list(share.unmatched)


def test_a_file_for_a_network_that_sees_what_is_kept():
    file = {"unet.conv_in.lora_A.weight": (4, 9, 3, 3), "unet.conv_in.lora_B.weight": (320, 4)}
    [share] = shares(file, ["sd15"])
    assert (share.variant, share.matching["unet"]) == ("inpainting", 1)
    assert share.sentence.startswith("Stable Diffusion 1.x inpainting: 1 of 1 keys match (1 U-Net)")


def test_every_family_that_it_may_be_for_is_told_and_those_that_are_not_recorded_are_not():
    key = "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q"
    file = {f"{key}.lora_down.weight": (4, 640), f"{key}.lora_up.weight": (640, 4)}
    found = shares(file, ["sdxl", "sdxl-refiner"])
    assert [(share.family, share.matching["unet"]) for share in found] == [("sdxl", 1), ("sdxl-refiner", 0)]
    assert [share.family for share in shares(file, [])] == ["sdxl"]
    assert shares({"lora_unet_x.lora_down.weight": (4, 4), "lora_unet_x.lora_up.weight": (4, 4)}, []) == ()
    assert [share.family for share in shares(file, ["wan", "sdxl"])] == ["sdxl"]
    assert "wan" not in PARTS


# ---- FLUX.1 and Stable Diffusion 3 ----------------------------------------------------------------------------------

SD3 = {"sd3-medium": MEDIUM, "sd3.5-medium": BETTER, "sd3.5-large": LARGE}


def clip_l():
    return CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12))


def t5_xxl():
    config = T5Config(d_model=4096, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
    return T5EncoderModel(config)


def layers(build):
    with torch.device("meta"):
        return weights(build(), (nn.Linear, nn.Conv2d))


def low(prefix, modules, dot="_", roles=ROLES["LoRA"]):
    return {
        f"{prefix}{name.replace('.', dot)}.{role}": shape
        for name, (rows, columns, *_) in modules.items()
        for role, shape in roles(rows, columns).items()
    }


def of_peft(rows, columns):
    return {"lora_A.weight": (16, columns), "lora_B.weight": (rows, 16)}


def test_kohya_s_keys_of_flux():
    """As many as sd-scripts train: 304 modules of the transformer, 72 of CLIP's tower."""
    blocks = {name: shape for name, shape in layers(lambda: flux.Flux(flux.DEV)).items() if "_blocks." in name}
    text = {f"text_model.{name.removeprefix('text_model.')}": shape for name, shape in layers(clip_l).items()}
    [share] = shares(low("lora_unet_", blocks) | low("lora_te1_", text), ["flux"])
    assert share.sentence == (
        "FLUX.1: 376 of 376 keys match (304 transformer, 72 text encoder), 1128 of 1128 tensors; lacks nothing"
    )


@pytest.mark.parametrize("prefix", ["lora_te3_", "lora_te2_"])
def test_t5_beside_flux(prefix):
    [share] = shares(low(prefix, layers(t5_xxl)), ["flux"])
    assert share.matching == {"transformer": 0, "text_encoder": 0, "text_encoder_2": 24 * 7}
    assert share.used == share.tensors == 3 * 24 * 7


def test_every_layer_of_diffusers_flux_is_found():
    modules = layers(lambda: FluxTransformer2DModel(guidance_embeds=True))
    [share] = shares(low("transformer.", modules, ".", of_peft), ["flux"])
    assert (share.variant, share.matching["transformer"], share.used) == ("", len(modules), 2 * len(modules))
    modules["x_embedder"] = (3072, 384)
    [share] = shares(low("transformer.", modules, ".", of_peft), ["flux"])
    assert (share.variant, share.matching["transformer"], share.misfits) == ("fill", len(modules), ())


@pytest.mark.parametrize("kind", SD3)
def test_every_layer_of_diffusers_sd3_is_found_and_its_size_told(kind):
    family, _, variant = kind.partition("-")
    modules = {n: s for n, s in layers(lambda: SD3Transformer2DModel(**SD3[kind])).items() if n != "pos_embed.proj"}
    file = low("transformer.", modules, ".", of_peft) | low("lora_te3_", layers(t5_xxl))
    [share] = shares(file, [family])
    assert (share.variant, share.misfits, share.unmatched) == (variant, (), ())
    others = {"text_encoder": 0, "text_encoder_2": 0, "text_encoder_3": 24 * 7}
    assert share.matching == {"transformer": len(modules), **others}


def test_xlabs_keys():
    file = {}
    for block in range(19):
        for layer, rows in {"qkv_lora1": 9216, "qkv_lora2": 9216, "proj_lora1": 3072, "proj_lora2": 3072}.items():
            key = f"double_blocks.{block}.processor.{layer}"
            file |= {f"{key}.down.weight": (16, 3072), f"{key}.up.weight": (rows, 16)}
    for block in range(38):
        key = f"single_blocks.{block}.processor."
        file |= {f"{key}qkv_lora.down.weight": (16, 3072), f"{key}qkv_lora.up.weight": (9216, 16)}
        file |= {f"{key}proj_lora.down.weight": (16, 15360), f"{key}proj_lora.up.weight": (3072, 16)}
    [share] = shares(file, ["flux"])
    assert (share.matching["transformer"], share.keys, share.used, share.strange) == (152, 152, len(file), ())


if __name__ == "__main__":
    PLACE.write_bytes(gzip.compress(recorded().encode(), mtime=0))
