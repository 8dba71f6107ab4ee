"""Which files are low-rank changes of FLUX.1 and Stable Diffusion 3, by names as scripts write them, at full size."""

import pytest
from test_recognise import sparse

from triptych.weights.adapters import CONTROL, adapter
from triptych.weights.files import open_bundle
from triptych.weights.header import Entry
from triptych.weights.recognise import recognise

ROLES = {
    "kohya": (".lora_down.weight", ".lora_up.weight"),
    "peft": (".lora_A.weight", ".lora_B.weight"),
    "XLabs": (".down.weight", ".up.weight"),
}
BOTH = ("sd3", "sd3.5", "flux")


def found(modules, metadata=None):
    """modules: names with what they take in and give, and how roles are named."""
    shapes = {}
    for name, (columns, rows, of) in modules.items():
        down, up = ROLES[of]
        shapes |= {name + down: (16, columns), name + up: (rows, 16)}
    return adapter({name: Entry("BF16", shape, 0, 0) for name, shape in shapes.items()}, metadata or {})


FILES = [
    ("lora_unet_double_blocks_0_img_attn_qkv", 3072, "kohya", ("flux",), "kohya", "transformer"),
    ("lora_unet_single_blocks_37_linear1", 3072, "kohya", ("flux",), "kohya", "transformer"),
    ("diffusion_model.double_blocks.0.img_mod.lin", 3072, "kohya", ("flux",), "original", "transformer"),
    ("double_blocks.0.img_attn.qkv", 3072, "peft", ("flux",), "original", "transformer"),
    ("base_model.model.double_blocks.0.img_attn.qkv", 3072, "peft", ("flux",), "peft", "transformer"),
    ("double_blocks.0.processor.qkv_lora1", 3072, "XLabs", ("flux",), "XLabs", "transformer"),
    ("double_blocks.0.processor.proj_lora2", 3072, "XLabs", ("flux",), "XLabs", "transformer"),
    ("single_blocks.0.processor.qkv_lora", 3072, "XLabs", ("flux",), "XLabs", "transformer"),
    ("transformer.single_transformer_blocks.30.attn.to_q", 3072, "peft", ("flux",), "diffusers", "transformer"),
    ("transformer.transformer_blocks.0.attn.to_q", 3072, "peft", ("flux",), "diffusers", "transformer"),
    ("transformer.base_model.model.transformer_blocks.3.attn.to_k", 3072, "peft", ("flux",), "peft", "transformer"),
    ("lora_transformer_transformer_blocks_0_attn_add_q_proj", 3072, "kohya", ("flux",), "OneTrainer", "transformer"),
    ("lycoris_transformer_blocks_0_attn_to_v", 1536, "kohya", ("sd3", "sd3.5"), "lycoris", "transformer"),
    ("transformer.transformer_blocks.0.attn.to_q", 1536, "peft", ("sd3", "sd3.5"), "diffusers", "transformer"),
    ("transformer.transformer_blocks.0.attn.to_q", 2432, "peft", ("sd3.5",), "diffusers", "transformer"),
    ("transformer.transformer_blocks.30.ff_context.net.0.proj", 2432, "peft", ("sd3.5",), "diffusers", "transformer"),
    ("transformer.transformer_blocks.0.ff_context.net.0.proj", 64, "peft", BOTH, "diffusers", "transformer"),
    ("lora_unet_joint_blocks_0_x_block_attn_qkv", 1536, "kohya", ("sd3", "sd3.5"), "kohya", "transformer"),
    ("lora_unet_joint_blocks_0_context_block_attn_qkv", 2432, "kohya", ("sd3.5",), "kohya", "transformer"),
    ("lora_unet_joint_blocks_37_x_block_mlp_fc1", 2432, "kohya", ("sd3.5",), "kohya", "transformer"),
    ("lora_unet_joint_blocks_2_x_block_attn2_qkv", 1536, "kohya", ("sd3.5",), "kohya", "transformer"),
    ("lora_te3_encoder_block_0_layer_0_SelfAttention_q", 4096, "kohya", BOTH, "kohya", "t5"),
    ("lora_te2_encoder_block_0_layer_0_SelfAttention_q", 4096, "kohya", ("flux",), "kohya", "t5"),
]


@pytest.mark.parametrize(("module", "width", "of", "families", "layout", "part"), FILES)
def test_one_module_tells(module, width, of, families, layout, part):
    low = found({module: (width, 3072, of)})
    assert (low.families, low.layout, low.targets) == (families, layout, (part,))
    assert (low.algorithm, low.modules, low.ranks, low.strange, low.control) == ("LoRA", 1, (16,), (), False)


def test_a_second_attention_tells_the_medium_of_3_5():
    low = found({f"transformer.transformer_blocks.0.{n}.to_k": (1536, 1536, "peft") for n in ("attn", "attn2")})
    assert low.families == ("sd3.5",)


def test_two_layers_of_one_processor_are_two_modules():
    names = [f"double_blocks.0.processor.{layer}_lora{n}" for layer in ("qkv", "proj") for n in (1, 2)]
    low = found(dict.fromkeys(names, (3072, 3072, "XLabs")))
    assert (low.modules, low.strange) == (4, ())


def test_others_of_such_names_are_not_taken_for_them():
    """LTX-Video attends twice, too; Qwen-Image has 60 such blocks as wide as FLUX.1's."""
    assert (
        found({f"transformer.transformer_blocks.0.attn{n}.to_k": (2048, 2048, "peft") for n in (1, 2)}).families == ()
    )
    qwen = {f"transformer.transformer_blocks.{n}.attn.to_k": (3072, 3072, "peft") for n in (0, 30, 59)}
    assert found(qwen).families == ()


@pytest.mark.parametrize("name", ["img_in", "transformer.x_embedder", "lora_unet_img_in"])
def test_control_loras(name):
    blocks = {"double_blocks.0.img_attn.qkv": (3072, 9216, "peft")}
    assert found(blocks | {name: (128, 3072, "peft")}).control
    assert not found(blocks | {name: (64, 3072, "peft")}).control


def test_inspect_says_of_control_loras_that_they_are(tmp_path):
    shapes = {"img_in.lora_A.weight": (16, 128), "img_in.lora_B.weight": (3072, 16)}
    shapes |= {
        "single_blocks.0.linear1.lora_A.weight": (16, 3072),
        "single_blocks.0.linear1.lora_B.weight": (21504, 16),
    }
    found = recognise(open_bundle(sparse(tmp_path / "x.safetensors", shapes)))
    assert (found.kind, found.families, found.naming) == ("lora", ("flux",), ("original",))
    assert CONTROL in found.notes


@pytest.mark.parametrize(
    ("written", "family"),
    [
        ("flux-1-dev/lora", "flux"),
        ("stable-diffusion-3-m/lora", "sd3"),
        ("stable-diffusion-3-5-large/lora", "sd3.5"),
    ],
)
def test_what_sd_scripts_write_into_the_header(written, family):
    assert found({FILES[0][0]: (3072, 3072, "kohya")}, {"modelspec.architecture": written}).claimed == family
