"""Layers in few bits: what they compute, what they hold, how far eight bits are off, and how they come out of files."""

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from few_bits import Q, blocks, written
from gguf.quants import dequantize
from safetensors.torch import save_file
from torch import nn

from triptych.errors import InvalidField, WeightsError, WeightsMismatch
from triptych.weights import quantize
from triptych.weights.blocks import FORMS, Rows
from triptych.weights.files import open_tensors
from triptych.weights.gguf import BLOCKS
from triptych.weights.inspect import inspect
from triptych.weights.layouts import Source
from triptych.weights.loading import Component
from triptych.weights.lora import Lora, Use
from triptych.weights.lora_changes import Change, low_rank, whole
from triptych.weights.lora_modes import Live, Merged
from triptych.weights.lora_names import Matched
from triptych.weights.quantize import KINDS, Packed, linear, quantized
from triptych.weights.shelf import Shelf


def plain(names):
    return {name: Source((name,)) for name in names}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def outliers(rows, columns):
    """Numbers of a network, of which a few are a hundred times as large, and a row of none."""
    weight = drawn(rows, columns) * 0.02
    weight[::7, 3] = 2.0
    weight[5] = 0
    return weight


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_is_linear_with_the_weight_that_its_bits_stand_for(form, dtype, monkeypatch):
    if form in BLOCKS:
        rows = Rows(form, torch.from_numpy(blocks(form, 80, 256)))
    else:
        rows = quantized(outliers(80, 256), "int8" if form == "I8" else "fp8")
        rows = Rows(form, rows.values & 0x7B if form == "F8_E5M2" else rows.values, rows.scale)
    layer = Packed(nn.Linear(256, 80), form, dtype)
    layer.hold(rows)
    layer.bias = nn.Parameter(drawn(80).to(dtype), requires_grad=False)
    for tokens in (0, 1, 33, 40):
        x = drawn(2, tokens, 256).to(dtype)
        wanted = F.linear(x.double(), rows.whole(dtype).double(), layer.bias.double())
        size = F.linear(x.double().abs(), rows.whole(dtype).double().abs())
        near = {torch.float32: 1e-6, torch.bfloat16: 2**-7}[dtype]
        assert layer(x).dtype == dtype
        assert ((layer(x).double() - wanted).abs() <= near * (size + wanted.abs()) + 1e-9).all()
        monkeypatch.setattr(quantize, "LARGEST", 256 * 30)  # three pieces, the last one smaller
        assert ((layer(x).double() - wanted).abs() <= near * (size + wanted.abs()) + 1e-9).all()


@pytest.mark.parametrize("columns", [64, 65, 100])
@pytest.mark.parametrize("tokens", [1, 7, 32])
def test_a_few_tokens_meet_int8_as_it_is(columns, tokens):
    rows = quantized(outliers(67, columns), "int8")
    x = drawn(tokens, columns).bfloat16()
    wanted = F.linear(x.double(), rows.whole(torch.float32).double())
    size = F.linear(x.double().abs(), rows.whole(torch.float32).double().abs())
    assert ((linear(x, rows).double() - wanted).abs() <= 2**-7 * size + 1e-9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [outliers, drawn])
def test_eight_bits_are_off_by_what_their_formats_allow(make, dtype):
    weight = make(70, 1000).to(dtype)
    largest = weight.float().abs().amax(1, keepdim=True)
    found = quantized(weight, "int8").whole(torch.float32)
    assert ((found - weight.float()).abs() <= 0.5001 * largest / 127).all()
    found = quantized(weight, "fp8").whole(torch.float32)  # 3 bits behind the point; below 2^-6 steps of 2^-9
    assert (
        (found - weight.float()).abs() <= torch.maximum(weight.float().abs() / 16, largest / 448 * 2**-10) * 1.001
    ).all()
    assert ((found == 0) | (weight != 0)).all()


def test_eight_bits_hold_the_largest_number_of_every_row():
    weight = outliers(20, 64)
    for kind in KINDS:
        torch.testing.assert_close(quantized(weight, kind).whole(torch.float32).abs().amax(1), weight.abs().amax(1))


class Net(nn.Module):
    """A network with one of each: an edge, a joint projection, a small layer, a kernel, a table, a norm."""

    def __init__(self):
        super().__init__()
        self.img_in, self.qkv = nn.Linear(64, 256), nn.Linear(256, 3 * 64, bias=False)
        self.out, self.small = nn.Linear(64, 256), nn.Linear(256, 8)
        self.norm, self.conv = nn.LayerNorm(256), nn.Conv2d(8, 4, 1)
        self.table = nn.Embedding(10, 256)

    def forward(self, x):
        h = self.norm(self.img_in(x) + self.table.weight[3])
        q, k, v = self.qkv(h).chunk(3, dim=-1)
        h = h + self.out(q * torch.sigmoid(k) + v)
        return self.conv(self.small(h).movedim(-1, 1)[..., None])


def joined(*parts):
    return torch.cat(parts)


def apart(names):
    """A layout whose queries, keys and values lie apart, keys first in the network."""
    found = plain(names)
    found["qkv.weight"] = Source(("q.weight", "k.weight", "v.weight"), joined)
    return found


def in_blocks(path, form="Q4_0", names=("qkv", "out", "table"), seed=0):
    """A file of Net with these in blocks, and the same numbers whole."""
    torch.manual_seed(seed)
    state = {name: value.numpy() for name, value in Net().state_dict().items()}
    entries = {name: (value, Q.F32) for name, value in state.items()}
    for name in names:
        rows, columns = state[f"{name}.weight"].shape
        raw = blocks(form, rows, columns, seed=len(name))
        entries[f"{name}.weight"] = raw, Q[form]
        state[f"{name}.weight"] = dequantize(raw, Q[form])
    return written(path, entries), {name: torch.from_numpy(value) for name, value in state.items()}


def component(path, layout=plain, **more):
    return Component(Net, open_tensors(path), layout, "cpu", torch.float32, **more)


@torch.no_grad()
def of(state):
    net = Net()
    net.load_state_dict(state)
    return net(drawn(2, 5, 64))


@torch.no_grad()
def out(one):
    return one.come()(drawn(2, 5, 64))


@pytest.mark.parametrize("form", ["Q4_0", "Q8_0", "Q5_1", "IQ4_NL"])
def test_a_network_from_blocks_computes_what_its_numbers_do(tmp_path, form):
    path, state = in_blocks(tmp_path / "x.gguf", form)
    one = component(path)
    for _ in range(2):
        torch.testing.assert_close(out(one), of(state), rtol=1e-4, atol=1e-4)
        assert isinstance(one.module.qkv, Packed)
        assert isinstance(one.module.out, Packed)
        assert type(one.module.img_in) is nn.Linear
        torch.testing.assert_close(one.module.table.weight, state["table.weight"])
        assert one.module.qkv.values.untyped_storage().data_ptr() == one.module.out.values.untyped_storage().data_ptr()
        one.leave()
        assert one.module.qkv.values.is_meta
    held = 4 * sum(v.numel() for n, v in state.items() if n not in ("qkv.weight", "out.weight"))
    count, size = BLOCKS[form]
    assert one.size == held + 2 * 256 * 64 * 2 * size // count
    whole = component(path, quantize="whole")
    assert type(whole.module.qkv) is nn.Linear
    torch.testing.assert_close(out(whole), of(state), rtol=1e-4, atol=1e-4)
    assert whole.size == 4 * sum(v.numel() for v in state.values())


def test_rows_in_blocks_are_joined_and_cut_without_being_unpacked(tmp_path):
    state = {name: value for name, value in Net().state_dict().items() if name != "qkv.weight"}
    raw = {name: blocks("Q4_K", 64, 256, seed) for seed, name in enumerate("qkv")}
    entries = {name: (value.numpy(), Q.F32) for name, value in state.items()}
    entries |= {f"{name}.weight": (value, Q.Q4_K) for name, value in raw.items()}
    one = component(written(tmp_path / "x.gguf", entries), apart)
    state["qkv.weight"] = torch.from_numpy(np.concatenate([dequantize(value, Q.Q4_K) for value in raw.values()]))
    torch.testing.assert_close(out(one), of(state), rtol=1e-4, atol=1e-4)
    assert one.module.qkv.form == "Q4_K"

    def turned(names):
        return apart(names) | {
            "qkv.weight": Source(("q.weight", "k.weight", "v.weight"), lambda *p: joined(*p).flip(1))
        }

    other = component(tmp_path / "x.gguf", turned)
    assert type(other.module.qkv) is nn.Linear
    state["qkv.weight"] = state["qkv.weight"].flip(1)
    torch.testing.assert_close(out(other), of(state), rtol=1e-4, atol=1e-4)


def test_blocks_of_another_shape_are_refused(tmp_path):
    path, state = in_blocks(tmp_path / "x.gguf")
    entries = {name: (value.numpy(), Q.F32) for name, value in state.items()}
    entries["qkv.weight"] = blocks("Q4_0", 3 * 64 + 1, 256), Q.Q4_0
    one = component(written(path, entries))
    with pytest.raises(WeightsMismatch, match=r"qkv\.weight"):
        one.come()


@pytest.mark.parametrize("kind", KINDS)
def test_large_layers_are_brought_into_eight_bits(tmp_path, kind):
    torch.manual_seed(0)
    state = Net().state_dict()
    save_file(state, tmp_path / "x.safetensors")
    one = component(tmp_path / "x.safetensors", quantize=kind)
    held = {name: quantized(state[f"{name}.weight"], kind) for name in ("qkv", "out")}
    assert {name for name, layer in one.module.named_modules() if isinstance(layer, Packed)} == set(held)
    near = {f"{name}.weight": rows.whole(torch.float32) for name, rows in held.items()}
    torch.testing.assert_close(out(one), of(state | near), rtol=1e-4, atol=1e-4)
    assert (out(one) - of(state)).norm() < 0.05 * of(state).norm()
    whole = sum(v.numel() for n, v in state.items() if n not in near) * 4
    assert one.size == whole + 2 * 3 * 64 * 256 - 64 * 256 * 2 + 4 * (3 * 64 + 256)
    with pytest.raises(InvalidField, match="int8, fp8, whole"):
        component(tmp_path / "x.safetensors", quantize="int4")


MARKERS = {
    "none": lambda scale: {},
    "scaled_fp8": lambda scale: {
        "qkv.scale_weight": scale,
        "qkv.scale_input": torch.ones(()),
        "scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn),
    },
    "scaled_fp8 full": lambda scale: {
        "qkv.scale_weight": scale.reshape(1),
        "scaled_fp8": torch.empty(2, dtype=torch.float8_e4m3fn),
    },
    "comfy_quant": lambda scale: {
        "qkv.weight_scale": scale,
        "qkv.input_scale": torch.ones(()),
        "qkv.comfy_quant": said({"format": "float8_e4m3fn"}),
    },
}


def said(told):
    return torch.tensor(list(json.dumps(told).encode()), dtype=torch.uint8)


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_files_are_read_with_and_without_scales(tmp_path, marker, dtype):
    torch.manual_seed(0)
    state = Net().state_dict()
    scale = torch.tensor(0.0117)
    beside = MARKERS[marker](scale)
    few = state["qkv.weight"].div(scale if beside else 1.0).to(dtype)
    save_file(state | {"qkv.weight": few} | beside, tmp_path / "x.safetensors")
    tensors = open_tensors(tmp_path / "x.safetensors")
    assert set(tensors.names()) == set(state)
    state["qkv.weight"] = few.float() * (scale if beside else 1.0)
    assert torch.equal(tensors.read("qkv.weight").float(), state["qkv.weight"])
    one = component(tmp_path / "x.safetensors")
    torch.testing.assert_close(out(one), of(state), rtol=1e-4, atol=1e-4)
    assert one.module.qkv.form == {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}[dtype]
    assert one.size == 4 * sum(v.numel() for n, v in state.items() if n != "qkv.weight") + few.numel() + (
        4 * len(few) if beside else 0
    )


def test_a_scale_for_each_row_int8_and_a_prefix(tmp_path):
    weight = outliers(64, 32)
    rows = quantized(weight, "int8")
    entries = {
        "model.diffusion_model.a.weight": rows.values.view(torch.int8),
        "model.diffusion_model.a.weight_scale": rows.scale,
        "model.diffusion_model.b.weight": drawn(2, 2).to(torch.float8_e4m3fn),
        "model.diffusion_model.scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn),
    }
    told = {"format_version": "1.0", "layers": {"model.diffusion_model.a": {"format": "int8_tensorwise"}}}
    path = tmp_path / "x.safetensors"
    save_file(entries, path, {"_quantization_metadata": json.dumps(told)})
    tensors = open_tensors(path).under("model.diffusion_model.")
    assert set(tensors.names()) == {"a.weight", "b.weight"}
    assert torch.equal(tensors.read("a.weight"), rows.whole(torch.float32))
    assert torch.equal(tensors.rows("a.weight").scale, rows.scale)
    told["layers"]["model.diffusion_model.a"]["convrot"] = True  # turned before they were rounded
    save_file(entries, path, {"_quantization_metadata": json.dumps(told)})
    assert "model.diffusion_model.a.weight_scale" in open_tensors(path).names()
    save_file(entries, path, {"_quantization_metadata": "{"})
    with pytest.raises(WeightsError, match="_quantization_metadata is broken"):
        open_tensors(path)


@pytest.mark.parametrize("told", [{"format": "mxfp8"}, {"format": "int8_tensorwise", "params": {"convrot": True}}, []])
def test_what_is_quantised_in_another_way_is_refused(tmp_path, told):
    path = tmp_path / "x.safetensors"
    few = {
        "a.weight": torch.zeros(4, 4, dtype=torch.int8),
        "a.weight_scale": torch.ones(4),
        "a.comfy_quant": said(told),
    }
    save_file(few, path)
    with pytest.raises(WeightsError, match="half precision"):
        open_tensors(path).read("a.weight")
    with pytest.raises(WeightsError, match="half precision"):
        open_tensors(path).rows("a.weight")


def test_scales_of_other_kinds_stay_and_are_refused(tmp_path):
    marks = {  # of SD 1.5's U-Net
        "input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(320, 768, dtype=torch.float8_e4m3fn),
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight_scale": torch.zeros(320, 24, dtype=torch.uint8),
        "output_blocks.0.0.in_layers.0.weight": torch.zeros(2560),
    }
    save_file(marks, tmp_path / "x.safetensors")
    assert "quantised in a way that is not read" in inspect(tmp_path / "x.safetensors").found.refusal
    marks["input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight_scale"] = torch.ones(())
    save_file(marks, tmp_path / "x.safetensors")
    assert "quantised" not in inspect(tmp_path / "x.safetensors").found.refusal


def file_of(*made):
    """A file of changes of the target net, by weight."""
    return Use(Lora({"net": {name: [change] for name, change in made}}, Matched("", {}, 0, ())), 0.7)


LOW = "qkv.weight", Change({"up": drawn(192, 4, seed=1), "down": drawn(4, 256, seed=2)}, low_rank, 0.1)
DIFFERENCE = "qkv.weight", Change({"diff": drawn(192, 256, seed=3) * 0.1}, whole)
BIAS = "out.bias", Change({"diff": drawn(256, seed=4)}, whole)
PLAIN = "img_in.weight", Change({"diff": drawn(256, 64, seed=5) * 0.1}, whole)


@pytest.mark.parametrize("mode", [Merged, Live])
@pytest.mark.parametrize("first", [LOW, DIFFERENCE], ids=["low", "difference"])
def test_small_changes_act_live_on_layers_in_few_bits(tmp_path, mode, first):
    path, state = in_blocks(tmp_path / "x.gguf")
    one = component(path)
    acting = mode({"net": one.module})
    one.arrived.append(partial(acting.arrived, "net"))
    bare = out(one)
    one.leave()
    acting.use(file_of(first, BIAS, PLAIN))
    changed = dict(state)
    for name, change in (first, BIAS, PLAIN):
        total = changed[name].clone()
        change.add(total, changed[name], 0.7)
        changed[name] = total
    for _ in range(2):  # it leaves and comes with them
        torch.testing.assert_close(out(one), of(changed), rtol=1e-4, atol=1e-4)
        one.leave()
    acting.use(file_of(LOW))  # from one kind to another
    assert (out(one) - bare).abs().max() > 1e-3
    acting.use()
    assert torch.equal(out(one), bare)
    assert type(one.module.qkv) is Packed
    assert one.module.qkv.weight.is_meta


def test_what_computes_with_a_layer_once_is_told_of_changes(tmp_path):
    one = component(in_blocks(tmp_path / "x.gguf")[0])
    one.come()
    version = one.module.qkv.weight._version
    Merged({"net": one.module}).use(file_of(LOW))
    assert one.module.qkv.weight._version > version


@pytest.mark.parametrize("kind", KINDS)
def test_layers_in_eight_bits_are_kept_for_the_next_start(tmp_path, kind, monkeypatch):
    save_file(Net().state_dict(), tmp_path / "x.safetensors")
    shelf = Shelf(tmp_path / "shelf", 2**20)
    first = component(tmp_path / "x.safetensors", quantize=kind, shelf=shelf)
    wanted = out(first)
    (kept,) = shelf.folder.iterdir()
    assert kept.stat().st_size < 2**17
    monkeypatch.setattr("triptych.weights.fewbits.quantized", None)  # which is not asked again
    second = component(tmp_path / "x.safetensors", quantize=kind, shelf=shelf)
    assert torch.equal(out(second), wanted)
    for name in ("qkv", "out"):  # views of the file
        storage = second.module.get_submodule(name).values.untyped_storage()
        assert storage.nbytes() == kept.stat().st_size
    second.leave()
    assert torch.equal(out(second), wanted)


def test_what_is_kept_and_is_not_whole_or_not_of_this_is_as_none(tmp_path):
    path, shelf = tmp_path / "x.safetensors", Shelf(tmp_path / "shelf", 2**20)
    torch.manual_seed(0)
    save_file(Net().state_dict(), path)
    wanted = out(component(path, quantize="int8", shelf=shelf))
    (kept,) = shelf.folder.iterdir()
    data = kept.read_bytes()
    broken = [b"", data[:100], data[:-1], data.replace(b'"version": "1"', b'"version": "0"'), b"x" * len(data)]
    broken.append(data.replace(b"qkv.values", b"qkv.valueX"))
    broken.append(data.replace(b'"key": "', b'"key": "0'))
    for other in broken:
        kept.write_bytes(other)
        assert torch.equal(out(component(path, quantize="int8", shelf=shelf)), wanted)
    assert kept.read_bytes() == data
    torch.manual_seed(1)
    save_file(Net().state_dict(), path)
    assert not torch.equal(out(component(path, quantize="int8", shelf=shelf)), wanted)
    assert len(list(shelf.folder.iterdir())) == 2


def test_a_shelf_holds_no_more_than_it_may(tmp_path):
    shelf = Shelf(tmp_path / "shelf", 150_000)  # two of 51 kB or so
    for number in range(4):
        path = tmp_path / f"{number}.safetensors"
        save_file(Net().state_dict(), path)
        component(path, quantize="int8", shelf=shelf).come()
        assert 1 <= len(list(shelf.folder.iterdir())) <= 2
    assert not list(shelf.folder.glob("*.part"))
    small = Shelf(tmp_path / "small", 100)
    component(path, quantize="int8", shelf=small).come()
    assert not small.folder.exists()
    (tmp_path / "file").touch()
    component(path, quantize="int8", shelf=Shelf(tmp_path / "file", 2**20)).come()  # no folder: nothing is kept


HELD = """
import sys, torch
from pathlib import Path
from torch import nn
from triptych.weights.files import open_tensors
from triptych.weights.layouts import Source
from triptych.weights.loading import Component

def anonymous():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024

def build():
    return nn.Sequential(*(nn.Linear(2048, 2048, bias=False) for _ in range(8)))

open_tensors(Path(sys.argv[1])).rows("0.weight").whole(torch.bfloat16)
before = anonymous()
layout = lambda names: {name: Source((name,)) for name in names}
one = Component(build, open_tensors(Path(sys.argv[1])), layout, "cpu", torch.bfloat16)
one.come()
after = anonymous()
one.module(torch.zeros(1, 64, 2048, dtype=torch.bfloat16))
print(after - before, one.size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measured by /proc")
def test_a_network_in_blocks_is_in_memory_as_views_of_its_file(tmp_path):
    raw = {f"{number}.weight": (blocks("Q4_0", 2048, 2048, number), Q.Q4_0) for number in range(8)}
    path = written(tmp_path / "x.gguf", raw)
    said = subprocess.run([sys.executable, "-c", HELD, str(path)], capture_output=True, text=True, check=True)
    grown, size = map(int, said.stdout.split())
    assert size == 8 * 2048 * 2048 * 18 // 32  # 19 MB
    assert grown < 4e6  # the weights in bfloat16 would take 67 MB
