"""Weights in few bits, and what is kept for the next start: each held against folders of what the bits stand for."""

import shutil

import gguf
import numpy as np
import pytest
import torch
from few_bits import HALVES, Q, blocks
from few_bits import written as gguf_written
from flow_files import KINDS, flux_parts, held, joined, original, saved, small, written  # noqa: F401
from safetensors.torch import load_file, save_file
from test_flow_files import alike, files_of, folders, make  # noqa: F401

from triptych import client
from triptych.engine.text.t5 import T5Text
from triptych.weights.fewbits import FewBits
from triptych.weights.loading import Component

NETWORK = "transformer/diffusion_pytorch_model.safetensors"
WIDE = "flux-dev-wide"
KINDS[WIDE] = (lambda: flux_parts(heads=2), KINDS["flux-dev"][1])


def changed(folder, place, changes):
    """A copy of a folder in which files have other numbers: by their places, name and tensor to tensor."""
    shutil.copytree(folder, place)
    for file, change in changes.items():
        tensors = load_file(place / file)
        save_file({name: change(name, value).contiguous() for name, value in tensors.items()}, place / file)
    return place


def eights(dtype):
    """Rounded to eight bits and back."""
    return lambda name, value: value.to(dtype).to(value.dtype)


def scaled(name, value):
    """As ComfyUI scales a matrix: its largest number becomes the largest of float8."""
    if not is_matrix(name, value):
        return value
    scale = value.abs().max() / 448
    return (value / scale).to(torch.float8_e4m3fn).float() * scale


def is_matrix(name, value):
    """Of a block: what lies at the edges stays as it is."""
    inside = name.startswith(("double_blocks", "single_blocks", "encoder.block", "joint_blocks"))
    return inside and value.ndim == 2 and "bias" not in name and min(value.shape) > 8


def scaled_file(tensors):
    """As ComfyUI writes them: each weight with its scale, and the marker."""
    found = {}
    for name, value in tensors.items():
        if not is_matrix(name, value):
            found[name] = value
            continue
        scale = value.abs().max() / 448
        found[name] = (value / scale).to(torch.float8_e4m3fn)
        found[f"{name.removesuffix('.weight')}.scale_weight"] = scale.reshape(1)
    return found | {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("kind", ["flux-dev", "sd3.5-medium"])
def test_float8(folders, make, tmp_path, kind, dtype):  # noqa: F811
    folder = folders(kind)
    parts = original(folder, kind)
    parts |= {name: {n: v.to(dtype) for n, v in parts[name].items()} for name in ("transformer", "t5xxl")}
    third = "text_encoder_3" if kind.startswith("sd3") else "text_encoder_2"
    rounded = {NETWORK: eights(dtype), f"{third}/model.safetensors": eights(dtype)}
    expected = make(changed(folder, tmp_path / "rounded", rounded))[0]
    assert alike(make(saved(joined(parts, parts), tmp_path / "all.safetensors"))[0], expected)
    alone = saved(parts["transformer"], tmp_path / "alone.safetensors")
    assert alike(make(alone, **files_of(parts, tmp_path / "parts"))[0], expected)


def test_scaled_float8(folders, make, tmp_path):  # noqa: F811
    folder = folders("flux-dev")
    parts = original(folder, "flux-dev")
    meant = {name: {n: scaled(n, v) for n, v in parts[name].items()} for name in ("transformer", "t5xxl")}
    rounded = saved(joined({**parts, **meant}, parts), tmp_path / "rounded.safetensors")
    expected = make(rounded)[0]
    assert not alike(expected, make(folder)[0])
    parts |= {name: scaled_file(parts[name]) for name in meant}
    assert alike(make(saved(joined(parts, parts), tmp_path / "all.safetensors"))[0], expected)
    alone = saved(parts["transformer"], tmp_path / "alone.safetensors")
    assert alike(make(alone, **files_of(parts, tmp_path / "parts"))[0], expected)


def packed(tensors, form):
    """Matrices of blocks in few bits, all else in 16 or 32: what a GGUF file holds, and what that stands for."""
    file, meant = {}, {}
    for number, (name, value) in enumerate(tensors.items()):
        if is_matrix(name, value) and value.shape[1] % gguf.GGML_QUANT_SIZES[Q[form]][0] == 0:
            data = bits(value, form, number)
            file[name], meant[name] = (data, Q[form]), torch.from_numpy(gguf.dequantize(data, Q[form]))
        else:
            file[name], meant[name] = (value.numpy(), Q.F32), value
    return file, meant


def bits(value, form, seed):
    """The numbers in this form; of those that the package cannot make, blocks of any, as large."""
    if form in ("Q8_0", "Q4_0", "Q5_1"):
        return gguf.quantize(value.numpy(), Q[form])
    found = blocks(form, *value.shape, seed).reshape(-1, gguf.GGML_QUANT_SIZES[Q[form]][1])
    for at in HALVES[form]:
        found[:, at : at + 2] = np.float16(1 / 8192).reshape(1).view(np.uint8)
    return found.reshape(len(value), -1)


@pytest.mark.parametrize("form", ["Q8_0", "Q4_0", "Q5_1", "Q5_K", "Q4_K", "Q6_K"])
def test_gguf_transformers(folders, make, tmp_path, form):  # noqa: F811
    parts = original(folders(WIDE), WIDE)
    options = files_of(parts, tmp_path / "parts")
    file, meant = packed(parts["transformer"], form)
    assert any(kind == Q[form] for _, kind in file.values())
    expected = make(saved(meant, tmp_path / "meant.safetensors"), **options)[0]
    picture, told = make(gguf_written(tmp_path / "flux1-dev.gguf", file), **options)
    assert alike(picture, expected)
    assert "flux1-dev.gguf" in told["recipe"]["model"]["weights"]


def test_gguf_of_stable_diffusion(folders, make, tmp_path):  # noqa: F811
    parts = original(folders("sd3.5-medium"), "sd3.5-medium")
    options = files_of(parts, tmp_path / "parts")
    file, meant = packed(parts["transformer"], "Q8_0")
    expected = make(saved(meant, tmp_path / "meant.safetensors"), **options)[0]
    assert alike(make(gguf_written(tmp_path / "sd3.5.gguf", file, arch="sd3"), **options)[0], expected)


LLAMA = {"SelfAttention.q": "attn_q", "SelfAttention.k": "attn_k", "SelfAttention.v": "attn_v",
         "SelfAttention.o": "attn_o", "SelfAttention.relative_attention_bias": "attn_rel_b",
         "layer.0.layer_norm": "attn_norm", "layer.1.layer_norm": "ffn_norm", "DenseReluDense.wi_0": "ffn_gate",
         "DenseReluDense.wi_1": "ffn_up", "DenseReluDense.wo": "ffn_down"}  # fmt: skip


def llama(name):
    """What llama.cpp calls a tensor of T5's encoder: convert_hf_to_gguf.py of its architecture t5encoder."""
    whole = {"shared.weight": "token_embd.weight", "encoder.final_layer_norm.weight": "enc.output_norm.weight"}
    if name in whole:
        return whole[name]
    [theirs] = [theirs for ours, theirs in LLAMA.items() if f"{ours}.weight" in name]
    return f"enc.blk.{name.split('.')[2]}.{theirs}.weight"


@pytest.mark.parametrize("form", ["Q8_0", "Q4_0"])
def test_gguf_of_t5(folders, make, tmp_path, form):  # noqa: F811
    parts = original(folders("flux-dev"), "flux-dev")
    file, meant = packed(parts["t5xxl"], form)
    t5 = gguf_written(tmp_path / "t5.gguf", {llama(name): value for name, value in file.items()}, arch="t5encoder")
    model = saved(joined(parts, [name for name in parts if name != "t5xxl"]), tmp_path / "flux.safetensors")
    expected = make(model, t5=saved(meant, tmp_path / "t5.safetensors"))[0]
    assert alike(make(model, t5=t5)[0], expected)


def rows(most, narrow):
    """Each row's largest number over the largest that eight bits have, and rounded to those."""

    def brought(name, value):
        if not is_matrix(name, value) or min(value.shape) < 64:
            return value
        scale = value.abs().amax(1, keepdim=True) / most
        return narrow(value / scale).float() * scale

    return brought


ROUNDED = {"int8": rows(127, lambda x: x.round().to(torch.int8)), "fp8": rows(448, lambda x: x.to(torch.float8_e4m3fn))}


@pytest.fixture
def restart():
    """As another process would begin."""
    return client.shared.cache_clear


@pytest.mark.parametrize(("kind", "bits"), [("flux-dev", "int8"), ("flux-dev", "fp8"), ("sd3.5-large", "int8")])
def test_quantised_here(folders, make, restart, home, monkeypatch, tmp_path, kind, bits):  # noqa: F811
    parts = original(folders(kind), kind)
    meant = {name: {n: ROUNDED[bits](n, v) for n, v in parts[name].items()} for name in ("transformer", "t5xxl")}
    expected = make(saved(joined({**parts, **meant}, parts), tmp_path / "meant.safetensors"))[0]
    model = saved(joined(parts, parts), tmp_path / "all.safetensors")
    plain = make(model)[0]
    few = {"quantize": bits, "quantize_t5": bits}
    picture, told = make(model, **few)
    assert alike(picture, expected)
    assert not alike(picture, plain)
    assert len(list((home / "cache" / "quantized").glob("*.safetensors"))) == 2
    restart()
    shutil.rmtree(home / "cache" / "prompts")  # so that T5 is wanted

    def never(*_):
        raise AssertionError("brought into eight bits once more")

    monkeypatch.setattr(FewBits, "_brought", never)
    once_more, again = make(model, **few)
    assert once_more == picture
    assert again["recipe"]["model"] == told["recipe"]["model"]
    assert make(model)[0] == plain


@pytest.fixture
def came(monkeypatch):
    """The kinds of networks that came into memory."""
    found = []
    come, pass_by = Component.come, Component.pass_by
    monkeypatch.setattr(Component, "come", lambda self: (found.append(type(self.module)), come(self))[1])
    monkeypatch.setattr(
        Component, "pass_by", lambda self, share: (found.append(type(self.module)), pass_by(self, share))[1]
    )
    return found


@pytest.mark.parametrize("kind", ["flux-dev", "sd3-medium"])
def test_a_prompt_that_was_told_before_needs_no_t5(folders, make, restart, came, kind):  # noqa: F811
    folder = folders(kind)
    picture, told = make(folder)
    assert T5Text in came
    restart()
    came.clear()
    once_more, again = make(folder)
    assert came
    assert T5Text not in came
    assert once_more == picture
    assert again["recipe"]["model"] == told["recipe"]["model"]
    restart()
    assert make(folder, t5_tokens=64)[0] != picture
    assert T5Text in came


def test_what_is_told_in_few_bits_is_another_thing(folders, make, restart, came):  # noqa: F811
    folder = folders("flux-dev")
    plain = make(folder)[0]
    restart()
    came.clear()
    assert make(folder, quantize_t5="int8")[0] != plain
    assert T5Text in came
    restart()
    assert make(folder)[0] == plain


def test_a_cache_that_cannot_be_written_is_none(folders, make, home):  # noqa: F811
    expected = make(folders("flux-dev"), quantize="int8")[0]
    shutil.rmtree(home / "cache")
    client.shared.cache_clear()
    (home / "cache").write_text("no folder")
    assert make(folders("flux-dev"), quantize="int8")[0] == expected
