"""T5's encoders against transformers' on the same random weights, in every precision, with masks and block by block."""

import pytest
import torch
from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

from triptych.engine.text.t5 import ACTIVATIONS, TOWERS, T5Text, buckets, unbounded

WIDTH, LAYERS, HEADS, HEAD, HIDDEN, WORDS = 32, 3, 4, 12, 48, 99
KINDS = ["original", "gated", "umt5"]


def pair(kind="gated"):
    """transformers' encoder and ours, with its weights."""
    torch.manual_seed(0)
    sizes = {"d_model": WIDTH, "d_kv": HEAD, "d_ff": HIDDEN, "num_layers": LAYERS, "num_heads": HEADS}
    config, model = (UMT5Config, UMT5EncoderModel) if kind == "umt5" else (T5Config, T5EncoderModel)
    feed = "relu" if kind == "original" else "gated-gelu"
    theirs = model(config(vocab_size=WORDS, feed_forward_proj=feed, initializer_factor=1.0, **sizes)).eval()
    for name, value in theirs.named_parameters():
        if "layer_norm" in name:
            torch.nn.init.normal_(value, 1, 0.3)
        elif "relative_attention_bias" in name:
            torch.nn.init.normal_(value)
        elif name.endswith((".q.weight", ".k.weight")):
            torch.nn.init.normal_(value, 0, 0.1)
    theirs.bfloat16().float()  # so that all precisions hold the same weights
    kinds = {"activation": "relu"} if kind == "original" else {"activation": "gelu", "gated": True}
    ours = T5Text(
        WIDTH, LAYERS, HEADS, hidden=HIDDEN, head=HEAD, words=WORDS, every_layer=kind == "umt5", **kinds
    ).eval()
    ours.load_state_dict(own(theirs.state_dict()))
    return theirs, ours


def own(state):
    """Without the table's second name."""
    return {name: value for name, value in state.items() if name != "encoder.embed_tokens.weight"}


def texts(length=150):
    """(3, L) ids, and where they are real: all of them, most, one."""
    ids = torch.randint(0, WORDS, (3, length), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(length) < torch.tensor([[length], [length * 2 // 3], [1]])
    return ids, mask


def distance(one, other):
    return float((one.float() - other.float()).norm() / other.float().norm())


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_it_is_transformers_encoder(kind):
    theirs, ours = pair(kind)
    ids, mask = texts()
    torch.testing.assert_close(ours(ids), theirs(ids).last_hidden_state, rtol=1e-5, atol=1e-5)
    said, heard = theirs(ids, attention_mask=mask.long()).last_hidden_state, ours(ids, mask)
    torch.testing.assert_close(heard[mask], said[mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_is_nearer_to_the_whole_than_transformers_is(kind, dtype):
    theirs, ours = pair(kind)
    ids, mask = texts()
    exact = theirs(ids, attention_mask=mask.long()).last_hidden_state[mask]
    halved = theirs.to(dtype)(ids, attention_mask=mask.long()).last_hidden_state[mask]
    heard = ours.to(dtype)(ids, mask)[mask]
    assert heard.dtype == dtype
    assert distance(heard, exact) < 1e-2
    assert distance(heard, exact) <= distance(halved, exact) * 1.05
    assert distance(heard, halved) < 1e-2


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_float16_does_not_overflow_where_hidden_states_grow_as_those_of_xxl(kind):
    """The residual stream of T5-XXL passes 65504; so does this one, by its feed-forward layers and by attention."""
    ours = pair(kind)[1]
    for block in ours.encoder.block:
        block.layer[0].SelfAttention.o.weight *= 4000
        block.layer[1].DenseReluDense.wo.weight *= 4000
        for name in ("wi", "wi_0", "wi_1"):
            if hasattr(block.layer[1].DenseReluDense, name):
                getattr(block.layer[1].DenseReluDense, name).weight *= 30
    ids, mask = texts()
    streams = []
    handle = ours.encoder.block[1].register_forward_hook(lambda _, __, out: streams.append(out[0].abs().max()))
    exact = ours(ids, mask)
    handle.remove()
    assert streams[0] > 65504
    heard = ours.to(torch.float16)(ids, mask)
    assert heard.isfinite().all()
    assert distance(heard[mask], exact[mask]) < 1e-2


@torch.no_grad()
def test_what_is_bounded_is_the_product_to_rounding_and_zero_stays_zero():
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 8, bias=False)
    x = torch.randn(5, 64) * torch.tensor([[1e6], [1.0], [1e-6], [0.0], [3e4]])
    size = x.norm(dim=1, keepdim=True).clamp(min=1e-20)
    expected = x @ layer.weight.T
    found = unbounded(layer.half(), x, torch.float16)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found / size, expected / size, rtol=0, atol=1e-3)
    assert not found[3].any()


@torch.no_grad()
def test_padding_that_is_masked_says_nothing():
    ours = pair()[1]
    ids, mask = texts(40)
    changed = torch.where(mask, ids, (ids + 7) % WORDS)
    torch.testing.assert_close(ours(changed, mask)[mask], ours(ids, mask)[mask])
    assert not torch.allclose(ours(changed)[mask], ours(ids)[mask])
    short = ours(ids[1:2, : int(mask[1].sum())])
    torch.testing.assert_close(ours(ids, mask)[1:2, : short.shape[1]], short, rtol=1e-5, atol=1e-5)


def test_buckets_are_transformers():
    length = 600
    way = torch.arange(length) - torch.arange(length)[:, None]
    torch.testing.assert_close(buckets(length), T5Attention._relative_position_bucket(way), rtol=0, atol=0)


@torch.no_grad()
def test_blocks_may_come_and_go_one_by_one():
    """As who streams weights does it: each block holds its weights while it runs and at no other time."""
    ours = pair()[1]
    ids, mask = texts(20)
    whole = ours(ids, mask)
    kept = [{name: value.clone() for name, value in block.state_dict().items()} for block in ours.encoder.block]
    here = []

    def come(block, _):
        number = list(ours.encoder.block).index(block)
        block.load_state_dict(kept[number], assign=True)
        here.append(number)

    def leave(block, *_):
        block.to("meta")

    for block in ours.encoder.block:
        leave(block)
        block.register_forward_pre_hook(come)
        block.register_forward_hook(leave)
    torch.testing.assert_close(ours(ids, mask), whole, rtol=0, atol=0)
    assert here == [0, 1, 2]
    assert all(value.is_meta for value in ours.encoder.block.parameters())


@pytest.mark.parametrize(
    ("name", "model", "config"),
    [
        ("t5-base", T5EncoderModel, T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)),
        (
            "t5-xxl",
            T5EncoderModel,
            T5Config(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"),
        ),
        (
            "umt5-xxl",
            UMT5EncoderModel,
            UMT5Config(
                vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
                feed_forward_proj="gated-gelu",
            ),
        ),
    ],
)  # fmt: skip
def test_published_towers_are_transformers_name_by_name(name, model, config):
    with torch.device("meta"):
        ours, theirs = T5Text(**TOWERS[name]), model(config)
    shapes = {name: tuple(value.shape) for name, value in ours.state_dict().items()}
    assert shapes == {name: tuple(value.shape) for name, value in own(theirs.state_dict()).items()}
    parameters = {"t5-base": 109628544, "t5-xxl": 4762310656, "umt5-xxl": 5680910336}  # as they are published
    assert sum(value.numel() for value in ours.parameters()) == parameters[name]
    assert (ours.depth, ours.width) == (TOWERS[name]["layers"], TOWERS[name]["width"])


def test_activations_are_those_that_towers_name():
    assert {tower["activation"] for tower in TOWERS.values()} == set(ACTIVATIONS)
