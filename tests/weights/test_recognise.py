"""What files are, told by headers of full size: every shape is true, and the numbers are a hole in the file."""

import json
import math
from functools import cache
from pathlib import Path

import diffusers
import pytest
import torch
import transformers

from triptych.engine.codecs import kl
from triptych.engine.nets import ldm
from triptych.errors import WeightsError
from triptych.weights import networks
from triptych.weights.files import open_bundle
from triptych.weights.recognise import recognise

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
TIMED = {"use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256}
UNETS = {
    "sd15": {"cross_attention_dim": 768},
    "sd2": {"cross_attention_dim": 1024, "use_linear_projection": True},
    "sdxl": {
        **TIMED,
        "cross_attention_dim": 2048,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": (PLAIN, CROSS, CROSS),
        "up_block_types": (UP, UP, PLAIN_UP),
        "transformer_layers_per_block": (1, 2, 10),
        "projection_class_embeddings_input_dim": 2816,
    },
    "sdxl-refiner": {
        **TIMED,
        "cross_attention_dim": 1280,
        "block_out_channels": (384, 768, 1536, 1536),
        "down_block_types": (PLAIN, CROSS, CROSS, PLAIN),
        "up_block_types": (PLAIN_UP, UP, UP, PLAIN_UP),
        "transformer_layers_per_block": 4,
        "projection_class_embeddings_input_dim": 2560,
    },
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
TOWERS = {"l": (768, 12), "h": (1024, 23), "g": (1280, 32)}
SHAPES = {"sd15": ldm.SD15, "sdxl": ldm.SDXL, "sdxl-refiner": ldm.REFINER}


def shapes(make):
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}


@cache
def unet(family, channels=4):
    return shapes(lambda: diffusers.UNet2DConditionModel(**UNETS[family], in_channels=channels))


@cache
def unet_original(family):
    return shapes(lambda: ldm.LatentUNet(SHAPES[family]))


@cache
def control(family):
    options = {name: value for name, value in UNETS[family].items() if name != "up_block_types"}
    return shapes(lambda: diffusers.ControlNetModel(**options))


@cache
def vae(channels=4):
    return shapes(lambda: diffusers.AutoencoderKL(**VAE, latent_channels=channels))


@cache
def vae_original():
    return shapes(lambda: kl.KL(kl.SD15))


@cache
def tower(name):
    width, layers = TOWERS[name]
    config = transformers.CLIPTextConfig(
        hidden_size=width, num_hidden_layers=layers, intermediate_size=4 * width, num_attention_heads=4,
        projection_dim=width,
    )  # fmt: skip
    kind = transformers.CLIPTextModelWithProjection if name == "g" else transformers.CLIPTextModel
    return shapes(lambda: kind(config))


@cache
def open_clip(name):
    width, layers = TOWERS[name]
    found = {"positional_embedding": (77, width), "token_embedding.weight": (49408, width), "logit_scale": ()}
    found |= {"ln_final.weight": (width,), "ln_final.bias": (width,), "text_projection": (width, width)}
    for layer in range(layers):
        block = f"transformer.resblocks.{layer}."
        found |= {f"{block}attn.in_proj_weight": (3 * width, width), f"{block}attn.in_proj_bias": (3 * width,)}
        for part, rows, columns in (("attn.out_proj", 1, 1), ("mlp.c_fc", 4, 1), ("mlp.c_proj", 1, 4)):
            found |= {f"{block}{part}.weight": (rows * width, columns * width), f"{block}{part}.bias": (rows * width,)}
        found |= {f"{block}{norm}.{kind}": (width,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
    return found


def under(prefix, lengths):
    return {prefix + name: shape for name, shape in lengths.items()}


def single(family):
    """Every tensor of a single file as the authors published it, but the schedule's buffers."""
    parts = under("model.diffusion_model.", unet_original(family)) | under("first_stage_model.", vae_original())
    text = under("text_model.", tower("l"))
    if family == "sd15":
        return parts | under("cond_stage_model.transformer.", text) | {"betas": (1000,), "alphas_cumprod": (1000,)}
    if family == "sdxl":
        parts |= under("conditioner.embedders.0.transformer.", text)
        return parts | under("conditioner.embedders.1.model.", open_clip("g"))
    return parts | under("conditioner.embedders.0.model.", open_clip("g"))


def sparse(path, lengths, metadata=None, dtype="F16"):
    """A file of full size that takes no room: its header is true, its data a hole."""
    table, place = {"__metadata__": metadata or {}}, 0
    for name, shape in lengths.items():
        size = math.prod(shape) * {"F16": 2, "F32": 4, "F8_E4M3": 1}[dtype]
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)  # as the library does, so that the data are aligned
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + place)
    return path


@pytest.fixture
def look(tmp_path):
    """What a file with these tensors is found to be."""

    def looked(lengths, metadata=None, name="x.safetensors"):
        return recognise(open_bundle(sparse(tmp_path / name, lengths, metadata)))

    return looked


PARTS = {
    "sd15": {"unet", "vae", "text_encoder"},
    "sdxl": {"unet", "vae", "text_encoder", "text_encoder_2"},
    "sdxl-refiner": {"unet", "vae", "text_encoder_2"},
}


@pytest.mark.parametrize("family", PARTS)
def test_single_files(look, family):
    found = look(single(family))
    assert (found.family, found.kind, found.variant, found.refusal) == (family, "checkpoint", "", "")
    assert {part.name for part in found.parts} == PARTS[family]
    assert not any(part.lacking for part in found.parts)
    assert found.missing == ()
    assert (found.prediction, found.told_by) == ("eps", "nothing")
    assert [note for note in found.notes if "eps is assumed" not in note] == []


def test_parameters_of_sdxl(look):
    counts = {part.name: part.parameters for part in look(single("sdxl")).parts}
    assert counts["unet"] == 2_567_463_684
    assert (counts["vae"], counts["text_encoder"]) == (83_653_863, 123_060_480)


def test_what_is_missing_is_said(look):
    whole = single("sdxl")
    found = look({name: shape for name, shape in whole.items() if "embedders.1" not in name and "first_" not in name})
    assert (found.family, found.missing) == ("sdxl", ("vae", "text_encoder_2"))


def test_parts_that_are_not_whole(look):
    found = look({name: shape for name, shape in single("sd15").items() if "first_stage_model.encoder" not in name})
    assert any("vae: 106 of 248 tensors are missing" in note for note in found.notes)
    assert found.refusal == ""
    thin = look({name: shape for name, shape in unet("sdxl").items() if "transformer_blocks.1." not in name})
    assert (thin.family, thin.kind) == ("sdxl", "unet")
    assert "a smaller relative" in thin.refusal


def test_a_moving_average_is_no_second_network(look):
    ema = {f"model_ema.diffusion_model{name.replace('.', '')}": shape for name, shape in unet_original("sd15").items()}
    found = look(single("sd15") | ema | {"model_ema.decay": (), "stray.weight": (3,)})
    assert len(found.parts) == 3
    assert any("not used: 687 tensors" in note for note in found.notes)
    assert any("1 tensors fit no network: stray.weight" in note for note in found.notes)


@pytest.mark.parametrize("family", UNETS)
def test_lone_networks_in_the_names_of_diffusers(look, family):
    found = look(unet(family))
    assert (found.family, found.kind, found.naming) == (family, "unet", ("diffusers",))
    assert found.missing == networks.families()[family].needs[1:]
    assert bool(found.refusal) == (family == "sd2")


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "model.diffusion_model.", "unet."])
@pytest.mark.parametrize("family", SHAPES)
def test_lone_networks_in_the_names_of_their_authors(look, family, prefix):
    found = look(under(prefix, unet_original(family)))
    assert (found.family, found.kind, found.naming) == (family, "unet", ("original",))


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_controlnets(look, family):
    found = look(control(family))
    assert (found.family, found.kind, found.missing) == (family, "control", ())
    union = look(control(family) | {"task_embedding": (6, 320)})
    assert union.variant == "union"
    assert "not supported" in union.refusal


def test_controlnet_in_the_names_of_its_author(look):
    names = {name: shape for name, shape in unet_original("sd15").items() if not name.startswith("out")}
    hint = {"input_hint_block.0.weight": (16, 3, 3, 3), "zero_convs.0.0.weight": (320, 320, 1, 1)}
    assert look(under("control_model.", names | hint)).kind == "control"


@pytest.mark.parametrize(
    ("channels", "variant", "refused"),
    [(9, "inpainting", False), (8, "instruct-pix2pix", True), (5, "depth", True), (7, "7 input channels", True)],
)
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_variants_by_what_goes_in(look, family, channels, variant, refused):
    found = look(unet(family) | {"conv_in.weight": (320, channels, 3, 3)})
    assert (found.family, found.variant, bool(found.refusal)) == (family, variant, refused)


def test_distilled_networks(look):
    assert "lcm" in look(unet("sd15") | {"time_embedding.cond_proj.weight": (320, 256)}).refusal
    assert not any("distilled" in note for note in look(unet("sd15")).notes)
    for name, title in [("sd_xl_turbo_1.0.safetensors", ""), ("x.safetensors", "DreamShaper Lightning")]:
        found = look(unet("sdxl"), {"modelspec.title": title}, name)
        assert any("which no tensor tells" in note for note in found.notes)


def test_what_a_network_has_more_is_said(look):
    motion = {"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": (320,)}
    found = look(unet("sd15") | motion)
    assert (found.variant, found.family) == ("motion", "sd15")
    assert "motion is not supported" in found.refusal
    assert "unet: 1 tensors more than a plain one has" in found.notes


@pytest.mark.parametrize("where", ["v_pred", "model.diffusion_model.v_pred"])
def test_markers_of_v(look, where):
    found = look(under("model.diffusion_model.", unet_original("sdxl")) | {where: (), "ztsnr": ()})
    assert (found.prediction, found.told_by, found.zero_snr) == ("v", "the tensor v_pred", True)
    assert not any("assumed" in note or "fit no" in note for note in found.notes)


@pytest.mark.parametrize(("said", "prediction"), [("v", "v"), ("epsilon", "eps")])
def test_what_the_metadata_say_of_prediction(look, said, prediction):
    found = look(unet("sdxl"), {"modelspec.prediction_type": said})
    assert (found.prediction, found.told_by) == (prediction, "modelspec.prediction_type")


@pytest.mark.parametrize("marker", ["edm_mean", "edm_vpred.sigma_max"])
def test_other_preconditioning_is_refused(look, marker):
    assert "EDM" in look(under("model.diffusion_model.", unet_original("sdxl")) | {marker: (4,)}).refusal


@pytest.mark.parametrize(
    "name", ["scaled_fp8", "conv_in.weight.absmax", "conv_in.weight.quant_state.bitsandbytes__nf4"]
)
def test_quantised_files_are_refused(look, name):
    assert "quantised" in look(unet("sdxl") | {name: (2,)}).refusal


def folder(path, family, index=None, scheduler=None):
    told = {"_class_name": "Pipeline", "unet": ["diffusers", "U"], "vae": ["diffusers", "V"]}
    told |= {"text_encoder": ["transformers", "T"], "scheduler": ["diffusers", "S"], **(index or {})}
    path.mkdir()
    (path / "model_index.json").write_text(json.dumps(told))
    sparse(path / "unet" / "diffusion_pytorch_model.fp16.safetensors", unet(family))
    sparse(path / "vae" / "diffusion_pytorch_model.safetensors", vae())
    sparse(path / "text_encoder" / "model.safetensors", tower("l"))
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler or {}))
    return path


def test_folders_of_diffusers(tmp_path):
    scheduler = {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    found = recognise(open_bundle(folder(tmp_path / "a", "sd15", scheduler=scheduler)))
    assert (found.family, found.kind, found.missing, found.refusal) == ("sd15", "folder", (), "")
    assert (found.prediction, found.told_by, found.zero_snr) == ("v", "scheduler_config.json", True)
    assert {part.folder for part in found.parts} == {"unet", "vae", "text_encoder"}
    half = recognise(open_bundle(folder(tmp_path / "b", "sdxl", scheduler={"_class_name": "EDMEulerScheduler"})))
    assert (half.family, half.missing) == ("sdxl", ("text_encoder_2",))
    assert "EDM" in half.refusal


def test_parts_of_another_family_are_said(tmp_path):
    mixed = folder(tmp_path / "a", "sd15", {"text_encoder_2": ["transformers", "T"], "other": ["x", "Y"]})
    sparse(mixed / "text_encoder_2" / "model.safetensors", tower("g"))
    sparse(mixed / "other" / "model.safetensors", {"a": (3,)})
    notes = recognise(open_bundle(mixed)).notes
    assert any("another family than its unet: text_encoder_2" in note for note in notes)
    assert any("1 tensors in other fit no network" in note for note in notes)


def test_a_lone_autoencoder_may_belong_to_several(look, tmp_path):
    for lengths in (vae(), vae_original(), under("first_stage_model.", vae_original())):
        found = look(lengths)
        assert (found.kind, found.family) == ("vae", "")
        assert found.families == ("sd15", "sd2", "sdxl", "sdxl-refiner")
        assert any("nothing tells which" in note for note in found.notes)
    assert look(vae(16)).families == ("sd3", "sd3.5", "flux")
    path = sparse(tmp_path / "vae" / "diffusion_pytorch_model.safetensors", vae())
    path.with_name("config.json").write_text('{"scaling_factor": 0.13025}')
    assert recognise(open_bundle(path)).families == ("sdxl", "sdxl-refiner")
    claimed = look(vae(), {"modelspec.architecture": "stable-diffusion-v1"})
    assert claimed.family == "sd15"
    assert any("what is written beside them tells" in note for note in claimed.notes)


def test_lone_text_encoders(look):
    assert look(tower("l")).families == ("sd15", "sdxl", "sd3", "sd3.5", "flux")
    assert look(under("text_model.", tower("l"))).kind == "text_encoder"
    assert look(tower("h")).family == "sd2"
    assert look(open_clip("h")).family == "sd2"
    assert look(tower("g")).kind == "text_encoder_2"
    assert look(open_clip("g")).kind == "text_encoder_2"


LATER = {
    "wan": lambda: diffusers.WanTransformer3DModel(num_layers=1),
    "stable-audio": lambda: diffusers.StableAudioDiTModel(num_layers=1),
}


@pytest.mark.parametrize("family", LATER)
def test_families_that_come_later(look, family):
    found = look(shapes(LATER[family]))
    assert (found.family, found.kind) == (family, "transformer")
    assert "comes later" in found.refusal


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("sd3", {"joint_blocks.0.context_block.adaLN_modulation.1.bias": (9216,)}),
        (
            "flux",
            {
                "img_in.weight": (3072, 64),
                "double_blocks.0.img_mod.lin.weight": (18432, 3072),
                "single_blocks.0.linear1.weight": (21504, 3072),
            },
        ),
        ("flux2", {"single_stream_modulation.lin.weight": (3, 3)}),
    ],
)
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_families_that_come_later_in_the_names_of_their_authors(look, family, names, prefix):
    found = look(under(prefix, names))
    assert found.family == family
    assert found.refusal


LORA = {"lora_down.weight": (8, 0), "lora_up.weight": (0, 8), "alpha": ()}
PEFT = {"lora_A.weight": (8, 0), "lora_B.weight": (0, 8)}
LOHA = {"hada_w1_a": (0, 8), "hada_w1_b": (8, 0), "hada_w2_a": (0, 8), "hada_w2_b": (8, 0), "alpha": ()}
LOKR = {"lokr_w1": (4, 4), "lokr_w2_a": (80, 8), "lokr_w2_b": (8, 80), "alpha": ()}
DORA = LORA | {"dora_scale": (1, 320)}
XL_KEY = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
FLAT = f"lora_unet_{KEY.replace('.', '_')}"


def low(modules, parts, width=768):
    """A low-rank file: every 0 is the width that the module takes in, or what it gives."""
    return {
        f"{module}.{part}": tuple(length or width for length in shape)
        for module in modules
        for part, shape in parts.items()
    }


@pytest.mark.parametrize(
    ("modules", "parts", "width", "families", "algorithm", "layout"),
    [
        ([FLAT], LORA, 768, ("sd15",), "LoRA", "kohya"),
        ([FLAT], LORA, 1024, ("sd2",), "LoRA", "kohya"),
        ([FLAT], LOHA, 768, ("sd15",), "LoHa", "kohya"),
        ([FLAT], LOKR, 768, ("sd15", "sd2"), "LoKr", "kohya"),
        ([FLAT], DORA, 768, ("sd15",), "LoRA with DoRA", "kohya"),
        ([XL_KEY], LORA, 2048, ("sdxl",), "LoRA", "kohya"),
        ([f"unet.{KEY}"], PEFT, 768, ("sd15",), "LoRA", "diffusers"),
        ([f"base_model.model.{KEY}"], PEFT, 768, ("sd15",), "LoRA", "peft"),
        (["unet." + KEY.replace("to_k", "processor.to_k_lora")], {"down.weight": (4, 0), "up.weight": (0, 4)}, 768,
         ("sd15",), "LoRA", "diffusers"),
        ([FLAT.replace("attn2", "attn1")], LORA, 320, ("sd15", "sd2"), "LoRA", "kohya"),
        ([XL_KEY.replace("blocks_0_attn2", "blocks_7_attn1")], LORA, 1280, ("sdxl",), "LoRA", "kohya"),
        (["lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q"], LORA, 640, ("sdxl", "sdxl-refiner"), "LoRA",
         "kohya"),
        (["lora_te_text_model_encoder_layers_0_self_attn_q_proj"], LORA, 768, ("sd15",), "LoRA", "kohya"),
        (["lora_unet_double_blocks_0_img_attn_qkv"], LORA, 3072, ("flux",), "LoRA", "kohya"),
        (["transformer.single_transformer_blocks.0.attn.to_q"], PEFT, 3072, ("flux",), "LoRA", "diffusers"),
        (["diffusion_model.blocks.0.self_attn.q"], PEFT, 5120, ("wan",), "LoRA", "original"),
        (["lora_unet_something_else"], LORA, 99, (), "LoRA", "kohya"),
    ],
)  # fmt: skip
def test_low_rank_files(look, modules, parts, width, families, algorithm, layout):
    found = look(low(modules, parts, width))
    assert found.kind == "lora"
    assert (found.families, found.adapter.algorithm, found.naming) == (families, algorithm, (layout,))
    assert found.adapter.modules == 1
    assert set(found.adapter.ranks) <= {4, 8}
    assert bool(found.refusal) == (found.family in ("sd2", "wan"))


def test_what_low_rank_files_change(look):
    text = ["lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_te2_text_model_encoder_layers_0_mlp_fc1"]
    found = look(
        low([XL_KEY], LORA, 2048) | low(text, LORA | {"lora_down.weight": (4, 0)}) | {"bundle_emb.x": (2, 768)}
    )
    assert found.adapter.targets == ("text_encoder", "text_encoder_2", "unet")
    assert (found.adapter.ranks, found.adapter.modules) == ((4, 8), 3)
    assert any("1 tensors play no part" in note for note in found.notes)


def test_metadata_of_low_rank_files_are_marked_as_such(look):
    ambiguous = low([FLAT.replace("attn2", "attn1")], LORA, 320)
    told = look(ambiguous, {"ss_base_model_version": "sd_v1"})
    assert told.family == "sd15"
    assert any("only its metadata tell" in note for note in told.notes)
    wrong = look(low([XL_KEY], LORA, 2048), {"modelspec.architecture": "stable-diffusion-v1/lora"})
    assert wrong.family == "sdxl"
    assert any("its tensors do not" in note for note in wrong.notes)


@pytest.mark.parametrize(
    ("lengths", "families"),
    [
        ({"emb_params": (4, 768)}, ("sd15",)),
        ({"<cat>": (768,)}, ("sd15",)),
        ({"emb_params": (1, 1024)}, ("sd2",)),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, ("sdxl",)),
    ],
)
def test_textual_inversions(look, lengths, families):
    found = look(lengths)
    assert (found.kind, found.families) == ("embedding", families)


def test_what_is_unknown_says_what_is_near(look):
    near = unet("sdxl") | {"add_embedding.linear_1.weight": (1280, 5632)}
    with pytest.raises(WeightsError) as found:
        look(near)
    message = str(found.value)
    assert "down_blocks (" in message
    assert "The nearest is the unet of Stable Diffusion XL (diffusers names)" in message
    assert "add_embedding.linear_1.weight of shape (1280, 2816) (it is (1280, 5632))" in message
    with pytest.raises(WeightsError, match=r"begin with: foo \(2\). No known network"):
        look({"foo.a": (2,), "foo.b": (2, 3, 4)})
    with pytest.raises(WeightsError, match="Its 0 tensors begin with: nothing"):
        look({})


def test_no_two_networks_have_the_same_marks():
    known = networks._table()[1]
    marks = [json.dumps(dict(signature.marks), sort_keys=True) for signature in known]
    assert len(set(marks)) == len(marks)
    for signature in known:
        assert set(signature.families) <= set(networks.families())


def test_the_table_ships():
    assert Path(networks.__file__).with_name("signatures.toml").is_file()
