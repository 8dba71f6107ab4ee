"""What share of a low-rank file fits, by records that are held equal to the networks themselves.

`python tests/weights/test_lora_share.py` writes the records anew.
"""

import gzip
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

import triptych
from triptych.engine.nets.ldm import LatentUNet
from triptych.engine.text.clip import ClipText
from triptych.families.sd_weights import KINDS
from triptych.weights import lora_share
from triptych.weights.layouts.unet import diffusers
from triptych.weights.lora import target
from triptych.weights.lora_share import NETWORKS, PARTS, shares, targets

UNETS = {"unet-sd15": "sd15", "unet-sdxl": "sdxl", "unet-refiner": "sdxl-refiner"}
TOWERS = {"clip-l": ("sd15", 0), "clip-bigg": ("sdxl", 1)}


def built(network):
    with torch.device("meta"):
        if network in UNETS:
            return LatentUNet(KINDS[UNETS[network]].shape)
        kind, place = TOWERS[network]
        return ClipText(**KINDS[kind].towers[place].tower)


def recorded():
    """The text of the records, from the networks."""
    lines = []
    for network in NETWORKS:
        module = built(network)
        lines.append(f"# {network}")
        names = {name: tuple(weight.shape) for name, weight in module.named_parameters()}
        theirs = diffusers(names, KINDS[UNETS[network]].shape.blocks) if network in UNETS else {}
        for name, shape in names.items():
            other = theirs[name].names[0].rpartition(".")[0] if name in theirs else ""
            lines.append(" ".join(filter(None, (name, ",".join(map(str, shape)), other))))
    return "\n".join(lines) + "\n"


PLACE = Path(triptych.__file__).parent / "weights" / lora_share.RECORD


def test_the_records_are_the_networks():
    assert gzip.decompress(PLACE.read_bytes()).decode() == recorded()


@pytest.mark.parametrize("kind", ["sd15", "sd15-inpainting", "sdxl", "sdxl-inpainting", "sdxl-refiner"])
def test_what_is_told_of_a_family_is_what_a_loaded_model_takes(kind):
    family, _, variant = kind.partition("-") if kind != "sdxl-refiner" else (kind, "", "")
    found = targets(family, 9 if variant else None)
    of = KINDS[kind]
    with torch.device("meta"):
        network, towers = LatentUNet(of.shape), {one.folder: ClipText(**one.tower) for one in of.towers}
    sources = diffusers([name for name, _ in network.named_parameters()], of.shape.blocks)
    assert found.keys() == {"unet", *towers}
    ours = target(network, found["unet"].prefixes, sources)
    assert found["unet"].shapes == ours.shapes
    assert found["unet"].spellings() == ours.spellings()
    for name, tower in towers.items():
        ours = target(tower, found[name].prefixes)
        assert (found[name].shapes, found[name].spellings()) == (ours.shapes, ours.spellings())


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
    assert [share.family for share in shares(file, ["flux", "sdxl"])] == ["sdxl"]
    assert set(PARTS) == {"sd15", "sdxl", "sdxl-refiner"}


if __name__ == "__main__":
    PLACE.write_bytes(gzip.compress(recorded().encode(), mtime=0))
