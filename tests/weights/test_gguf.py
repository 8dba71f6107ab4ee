"""GGUF files: what the gguf package writes is read, and whatever else there is, is refused with a reason."""

import json
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from few_bits import Q, blocks, written
from gguf.quants import dequantize
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from triptych.cli import run
from triptych.errors import WeightsError
from triptych.weights.files import open_bundle, open_tensors
from triptych.weights.gguf import BLOCKS
from triptych.weights.inspect import inspect
from triptych.weights.layouts import t5


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.gguf"


@pytest.mark.parametrize("form", BLOCKS)
def test_every_block_type_is_read_as_the_package_reads_it(path, form):
    raw = blocks(form, 6, 512)
    written(path, {"a.weight": (raw, Q[form]), "b": (np.arange(5, dtype=np.float32), Q.F32)})
    tensors = open_tensors(path)
    assert tensors.shape("a.weight") == (6, 512)
    assert tensors.dtype("a.weight") == tensors.form("a.weight") == form
    wanted = torch.from_numpy(dequantize(raw, Q[form]))
    assert torch.equal(tensors.read("a.weight"), wanted)
    assert torch.equal(tensors.read("a.weight", torch.bfloat16), wanted.bfloat16())
    assert torch.equal(tensors.rows("a.weight").values, torch.from_numpy(raw))
    assert torch.equal(tensors.read("b"), torch.arange(5.0))
    assert tensors.form("b") is None


def test_plain_types(path):
    x = np.random.default_rng(0).normal(size=(4, 3, 2, 1))
    made = {
        "f32": (x.astype(np.float32), Q.F32),
        "f16": (x.astype(np.float16), Q.F16),
        "bf16": (torch.from_numpy(x).bfloat16().view(torch.int16).numpy().view(np.uint8), Q.BF16),
        "f64": (x, Q.F64),
        "i8": (np.arange(-3, 3, dtype=np.int8), Q.I8),
        "i32": (np.arange(-3, 3, dtype=np.int32), Q.I32),
    }
    tensors = open_tensors(written(path, made))
    assert tensors.shape("f32") == tensors.shape("bf16") == (4, 3, 2, 1)
    assert torch.equal(tensors.read("f32"), torch.from_numpy(x).float())
    assert torch.equal(tensors.read("bf16"), torch.from_numpy(x).bfloat16())
    assert torch.equal(tensors.read("f64"), torch.from_numpy(x))
    assert torch.equal(tensors.read("f16"), torch.from_numpy(x.astype(np.float16)))
    assert tensors.read("i8").tolist() == tensors.read("i32").tolist() == [-3, -2, -1, 0, 1, 2]


def test_shapes_that_were_changed_so_that_blocks_fit_are_as_they_were(path):
    raw = blocks("Q5_K", 9, 256)  # of a kernel (16, 16, 3, 3)
    written(path, {"conv.weight": (raw, Q.Q5_K)}, "sdxl", **{"comfy.gguf.orig_shape.conv.weight": [16, 16, 3, 3]})
    tensors = open_tensors(path)
    wanted = torch.from_numpy(dequantize(raw, Q.Q5_K)).reshape(16, 16, 3, 3)
    assert torch.equal(tensors.read("conv.weight"), wanted)
    assert tensors.form("conv.weight") is None  # whose rows of 144 are no blocks
    assert tensors.metadata["general.architecture"] == "sdxl"
    wrong = {"comfy.gguf.orig_shape.conv.weight": [16, 16, 3, 4]}
    written(path, {"conv.weight": (raw, Q.Q5_K)}, "sdxl", **wrong)
    with pytest.raises(WeightsError, match="is said to be of shape"):
        open_tensors(path)


def test_llama_cpps_names_of_t5_find_their_layout(path):
    tensors = {
        f"enc.blk.0.{name}.weight": (blocks("Q8_0", 32, 32), Q.Q8_0) for name in ("attn_q", "ffn_up", "ffn_gate")
    }
    found = open_tensors(written(path, tensors | {"token_embd.weight": (blocks("Q4_0", 8, 32), Q.Q4_0)}, "t5encoder"))
    assert set(t5.layout(found.names())(found.names())) == {
        "encoder.block.0.layer.0.SelfAttention.q.weight",
        "encoder.block.0.layer.1.DenseReluDense.wi_1.weight",
        "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
        "shared.weight",
    }


def test_a_folder_with_one_file_and_a_bundle(path):
    written(path, {"a": (blocks("Q4_0", 2, 32), Q.Q4_0)})
    assert open_bundle(path).sets[""].names() == open_tensors(path.parent).names() == ("a",)
    save_file({"b": torch.zeros(2)}, path.with_name("y.safetensors"))
    with pytest.raises(WeightsError, match="several files"):
        open_tensors(path.parent)


def test_inspect_tells_what_it_is(tmp_path, capsys):
    marks = {  # of SD 1.5's U-Net
        "input_blocks.0.0.weight": (np.zeros((320, 4, 3, 3), np.float16), Q.F16),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (blocks("Q4_K", 320, 768), Q.Q4_K),
        "output_blocks.0.0.in_layers.0.weight": (np.zeros(2560, np.float32), Q.F32),
    }
    path = written(tmp_path / "sd-Q4_K.gguf", marks, "sd1")
    report = inspect(path)
    assert report.found.families == ("sd15",)
    assert report.dtypes == {"Q4_K": 320 * 768, "F16": 320 * 36, "F32": 2560}
    assert report.memory["as is"] == 320 * 768 * 144 // 256 + 2 * 320 * 36 + 2 * 2560  # all else in bfloat16
    assert report.metadata["general.architecture"] == "sd1"
    assert run(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "Q4_K" in shown
    assert "sd15" in shown
    assert run(["inspect", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["families"] == ["sd15"]


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def tensor(name="a", shape=(32,), kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def made(tensors=(), values=(), data=256, version=3, counts=None):
    counts = counts or (len(tensors), len(values))
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(values) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


HUGE = 2**60
ALIGN = text("general.alignment") + struct.pack("<I", 4)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GGUF", "cut off"),
        (made(version=1), "version 1, and 2 and 3"),
        (made(version=0x03000000), "version"),  # of the other byte order
        (made(counts=(HUGE, 0)), "no printable text"),
        (made(counts=(0, HUGE)), "there twice"),
        (made([tensor()], counts=(HUGE, 0)), "no printable text"),
        (made(values=[struct.pack("<Q", HUGE)]), "longer than"),
        (made(values=[text("a") + struct.pack("<IQ", 8, HUGE)]), "longer than"),
        (made(values=[text("a") + struct.pack("<IQ", 8, 5000)]), "cut off"),
        (made(values=[text("a") + struct.pack("<IIQ", 9, 0, HUGE)]), "longer than"),
        (made(values=[text("a") + struct.pack("<IIQ", 9, 8, HUGE)]), "cut off"),
        (made(values=[text("a") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 40]), "too deep"),
        (made(values=[text("a") + struct.pack("<I", 77)]), "type 77"),
        (made(values=[text(b"\xff") + struct.pack("<IB", 0, 1)]), "UTF-8"),
        (made(values=[text("a") + struct.pack("<IB", 0, 1)] * 2), "there twice"),
        (made(values=[ALIGN + struct.pack("<I", 0)]), "no power of two"),
        (made(values=[ALIGN + struct.pack("<I", 48)]), "no power of two"),
        (made(values=[ALIGN + struct.pack("<I", 2**31)]), "no power of two"),
        (made([tensor("")]), "no printable text"),
        (made([tensor("a\x1b[2J")]), "no printable text"),
        (made([tensor(), tensor()]), "there twice"),
        (made([tensor(shape=(1,) * 9)]), "9 axes"),
        (made([text("a") + struct.pack("<I", 2**31)]), "axes"),
        (made([tensor(shape=(HUGE, HUGE))]), "no possible shape"),
        (made([tensor(shape=(2**64 - 1,))]), "no possible shape"),
        (made([tensor(shape=(31,), kind=2)]), "no possible shape"),
        (made([tensor(shape=(), kind=2)]), "no possible shape"),
        (made([tensor(kind=16)]), r"IQ2_XXS \(type 16\), which is not read"),
        (made([tensor(kind=4)]), "type 4, which is not read"),
        (made([tensor(kind=2**31)]), "which is not read"),
        (made([tensor(offset=8)]), "multiple of 32"),
        (made([tensor(offset=2**63)]), "multiple of 32"),
        (made([tensor(offset=HUGE)]), "cut off"),
        (made([tensor(shape=(2**40,))]), "cut off"),
        (made([tensor(), tensor("b", offset=96)]), "overlaps"),
        (made([tensor(), tensor("b")]), "overlaps"),
        (made([tensor(shape=(64,))], data=255), "cut off"),
    ],
)
def test_broken_headers_are_refused(path, data, reason):
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(WeightsError, match=reason) as found:
        open_tensors(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1_000_000
    assert str(path) in str(found.value)


def test_a_long_vocabulary_is_passed_over(path):
    words = [f"word {number}" for number in range(40_000)]
    written(path, {"a": (np.zeros(32, np.float32), Q.F32)}, "t5", **{"tokenizer.ggml.tokens": words})
    tensors = open_tensors(path)
    assert tensors.names() == ("a",)
    assert "tokenizer.ggml.tokens" not in tensors.metadata


def read_or_refused(path):
    try:
        tensors = open_tensors(path)
    except WeightsError:
        return
    for name, entry in tensors.entries().items():
        assert entry.stop <= path.stat().st_size
        if entry.count < 10_000:
            assert tuple(tensors.read(name).shape) == entry.shape


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_bytes_that_turn(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "turned.gguf"
    tensors = {"a": (blocks("Q4_K", 2, 256), Q.Q4_K), "b": (np.zeros((3, 5), np.float16), Q.F16)}
    written(path, tensors, "flux", **{"comfy.gguf.orig_shape.b": [5, 3]})
    raw = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))])
    read_or_refused(path)


@given(st.binary(max_size=300), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_header_or_a_reason(tmp_path_factory, data, tensors, values):
    path = tmp_path_factory.getbasetemp() / "bytes.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, values) + data)
    read_or_refused(path)
