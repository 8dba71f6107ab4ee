"""Layouts of T5's encoders: files of every kind give the encoder that they were made of, by names alone."""

import pytest
import torch
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration, UMT5Config, UMT5EncoderModel

from triptych.engine.text.t5 import T5Text
from triptych.errors import WeightsMismatch
from triptych.weights.files import open_tensors
from triptych.weights.layouts import gathered
from triptych.weights.layouts.t5 import IDLE, LAYOUTS, layout
from triptych.weights.loading import Component

SIZES = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 30}
TABLE = "encoder.embed_tokens.weight"


def encoder(gated=True, every_layer=False):
    torch.manual_seed(0)
    kind = {"activation": "gelu", "gated": True} if gated else {"activation": "relu"}
    return T5Text(16, 2, 2, hidden=24, head=4, words=30, every_layer=every_layer, **kind)


def as_transformers(state, prefix=""):
    return {prefix + name: value for name, value in (state | {TABLE: state["shared.weight"]}).items()}


def as_gguf(state):
    """By the names of gguf 0.19.0, `MODEL_ARCH.T5ENCODER`; a layer without a gate is `ffn_up`, as its table says."""
    parts = {
        "layer.0.layer_norm": "attn_norm",
        **{f"layer.0.SelfAttention.{letter}": f"attn_{letter}" for letter in "qkvo"},
        "layer.0.SelfAttention.relative_attention_bias": "attn_rel_b",
        "layer.1.layer_norm": "ffn_norm",
        "layer.1.DenseReluDense.wi": "ffn_up",
        "layer.1.DenseReluDense.wi_0": "ffn_gate",
        "layer.1.DenseReluDense.wi_1": "ffn_up",
        "layer.1.DenseReluDense.wo": "ffn_down",
    }
    whole = {"shared.weight": "token_embd.weight", "encoder.final_layer_norm.weight": "enc.output_norm.weight"}
    return renamed(state, parts, "enc.blk.", whole)


def as_wan(state):
    """As `wan/modules/t5.py` names its modules."""
    parts = {
        "layer.0.layer_norm": "norm1",
        **{f"layer.0.SelfAttention.{letter}": f"attn.{letter}" for letter in "qkvo"},
        "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
        "layer.1.layer_norm": "norm2",
        "layer.1.DenseReluDense.wi_0": "ffn.gate.0",
        "layer.1.DenseReluDense.wi_1": "ffn.fc1",
        "layer.1.DenseReluDense.wo": "ffn.fc2",
    }
    whole = {"shared.weight": "token_embedding.weight", "encoder.final_layer_norm.weight": "norm.weight"}
    return renamed(state, parts, "blocks.", whole)


def renamed(state, parts, prefix, whole):
    found = {}
    for name, value in state.items():
        if name in whole:
            found[whole[name]] = value
        else:
            number, _, part = name.removeprefix("encoder.block.").removesuffix(".weight").partition(".")
            found[f"{prefix}{number}.{parts[part]}.weight"] = value
    return found


FILES = {
    "transformers": as_transformers,
    "sd3": lambda state: as_transformers(state, "text_encoders.t5xxl.transformer."),
    "gguf": as_gguf,
    "wan": as_wan,
}
OTHERS = {"text_encoders.clip_l.transformer.text_model.final_layer_norm.weight": torch.zeros(1)}


@pytest.mark.parametrize("every_layer", [False, True])
@pytest.mark.parametrize(
    ("name", "gated"),
    [("transformers", True), ("transformers", False), ("sd3", True), ("gguf", True), ("gguf", False), ("wan", True)],
)
def test_a_file_of_each_kind_gives_back_its_encoder(name, gated, every_layer):
    state = encoder(gated, every_layer).state_dict()
    file = FILES[name](state)
    sources = LAYOUTS[name](file | OTHERS)
    assert sources.keys() == state.keys()
    found = gathered(sources, {name: tuple(value.shape) for name, value in state.items()}, file.__getitem__)
    for ours, value in state.items():
        torch.testing.assert_close(found[ours], value, rtol=0, atol=0)
    assert {part for source in sources.values() for part in source.names} == file.keys()
    assert layout(file)(file) == sources


@pytest.mark.parametrize("table", ["shared.weight", TABLE])
def test_one_table_under_either_name_is_enough(table):
    state = encoder().state_dict()
    file = as_transformers(state)
    del file[({"shared.weight", TABLE} - {table}).pop()]
    sources = LAYOUTS["transformers"](file)
    assert sources.keys() == state.keys()
    assert sources["shared.weight"].names == (table,)


@pytest.mark.parametrize("kind", ["encoder", "umt5", "all"])
def test_what_transformers_saves_is_loaded_and_says_the_same(kind, tmp_path):
    torch.manual_seed(0)
    config, model = {
        "encoder": (T5Config, T5EncoderModel),
        "umt5": (UMT5Config, UMT5EncoderModel),
        "all": (T5Config, T5ForConditionalGeneration),
    }[kind]
    theirs = model(config(feed_forward_proj="gated-gelu", **SIZES)).eval()
    theirs.save_pretrained(tmp_path)
    tensors = open_tensors(tmp_path)
    build = lambda: encoder(every_layer=kind == "umt5")  # noqa: E731
    component = Component(
        build, tensors, lambda _: layout(tensors.names())(tensors.names()), "cpu", torch.float32, idle=IDLE
    )
    ids = torch.randint(0, 30, (2, 9))
    with torch.no_grad():
        said = theirs.get_encoder()(ids).last_hidden_state
        torch.testing.assert_close(component.come()(ids), said, rtol=1e-5, atol=1e-5)


def test_what_is_of_no_encoder_is_refused_and_what_is_packed_with_it_is_not(tmp_path):
    state = as_transformers(encoder().state_dict())
    spare = {"spiece_model": torch.zeros(3, dtype=torch.uint8), "lm_head.weight": torch.zeros(1)}
    for more, fits in ((spare, True), ({"encoder.block.0.layer.0.SelfAttention.q.scale_weight": torch.ones(1)}, False)):
        save_file({name: value.clone() for name, value in (state | more).items()}, tmp_path / "t5.safetensors")
        tensors = open_tensors(tmp_path / "t5.safetensors")
        sources = layout(tensors.names())(tensors.names())
        make = lambda sources=sources, tensors=tensors: Component(  # noqa: E731
            encoder, tensors, lambda _: sources, "cpu", torch.float32, idle=IDLE
        )
        if fits:
            assert make().come().shared.weight.shape == (30, 16)
        else:
            with pytest.raises(WeightsMismatch, match="scale_weight"):
                make()


def test_every_layout_has_its_file_here():
    assert FILES.keys() == LAYOUTS.keys()
