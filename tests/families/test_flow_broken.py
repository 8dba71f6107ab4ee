"""Files of Stable Diffusion 3 and FLUX.1 that are cut off, of something else, or hostile: what triptych make says."""

import json
import shutil
import struct

import pytest
from few_bits import written as gguf_written
from flow_files import apart, joined, original, saved, small  # noqa: F401
from test_flow_few_bits import packed
from test_flow_files import files_of, folders, named, refused  # noqa: F401


def cut(data):
    return data[: len(data) * 2 // 3]


def lying(data):
    """A header that says tensors overlap."""
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    first, second, *_ = [name for name in table if name != "__metadata__"]
    table[second]["data_offsets"][0] = table[first]["data_offsets"][0]
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


BROKEN = {
    "cut off": (cut, "is cut off: "),
    "cut off in its header": (lambda data: data[:200], "is cut off: "),
    "empty": (lambda data: b"", "is empty"),
    "web page": (lambda data: b"<!DOCTYPE html><html>", "is a web page"),
    "pointer": (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "pickle": (lambda data: b"\x80\x02}q\x00.", "is a pickle"),
    "text": (lambda data: b"Access denied", "is a text, not weights"),
    "endless header": (lambda data: (2**62).to_bytes(8, "little") + b"{" + data, "is no safetensors file"),
    "lies": (lying, "its header is broken"),
}
PARTS = ("model", "clip_l", "t5", "vae")


@pytest.fixture
def whole(folders, tmp_path):  # noqa: F811
    """A transformer and its parts, by the option that names each."""
    parts = original(folders("flux-dev"), "flux-dev")
    model = saved(parts["transformer"], tmp_path / "model" / "flux1-dev.safetensors")
    return {"model": model, **files_of(parts, tmp_path / "parts")}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file(whole, refused, kind, part):  # noqa: F811
    change, told = BROKEN[kind]
    path = whole[part]
    path.write_bytes(change(path.read_bytes()))
    message = refused(whole.pop("model"), **whole)
    assert told in message
    assert str(path) in message
    assert "unexpected" not in message


def value(name, kind, data):
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + data


HOSTILE = {
    "cut off": (cut, "it is cut off"),
    "cut off in its header": (lambda data: data[:100], "it is cut off"),
    "version": (lambda data: data[:4] + struct.pack("<I", 77) + data[8:], "it is of version 77"),
    "countless": (lambda data: data[:8] + struct.pack("<Q", 2**60) + data[16:], "its header is broken"),
    "long array": (
        lambda data: data[:8] + struct.pack("<QQ", 0, 1) + value(b"a", 9, struct.pack("<IQ", 0, 2**60)) + bytes(99),
        "its header is broken",
    ),
    "unknown type": (lambda data: data[:16] + struct.pack("<Q", 1) + value(b"a", 99, bytes(9)), "value of type 99"),
}


@pytest.mark.parametrize("part", ["model", "t5"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_broken_gguf(whole, folders, refused, tmp_path, kind, part):  # noqa: F811
    parts = original(folders("flux-dev"), "flux-dev")
    change, told = HOSTILE[kind]
    file, _ = packed(parts["transformer" if part == "model" else "t5xxl"], "Q8_0")
    path = gguf_written(tmp_path / "flux1-dev.gguf", file)
    path.write_bytes(change(path.read_bytes()))
    whole[part] = path
    message = refused(whole.pop("model"), **whole)
    assert f"{path}: " in message
    assert told in message


def test_half_a_transformer(whole, refused, folders, tmp_path):  # noqa: F811
    parts = original(folders("flux-dev"), "flux-dev")
    half = {name: value for name, value in parts["transformer"].items() if "double_blocks.1.img_attn" not in name}
    message = refused(saved(half, tmp_path / "half.safetensors"), **{n: p for n, p in whole.items() if n != "model"})
    assert "the weights do not fit the model. Missing (" in message
    assert "double_blocks.1.img_attn.qkv.weight" in message


def test_a_part_with_other_tensors(whole, refused, folders, tmp_path):  # noqa: F811
    parts = original(folders("flux-dev"), "flux-dev")
    more = {**parts["t5xxl"], "something.else": parts["t5xxl"]["shared.weight"][:1].clone()}
    whole["t5"] = saved(more, tmp_path / "t5.safetensors")
    message = refused(whole.pop("model"), **whole)
    assert message.startswith(f"{whole['t5']}: the weights do not fit the model.")
    assert "Unexpected (1): something.else" in message


@pytest.mark.parametrize("kind", ["flux-dev", "sd3-medium"])
def test_folders_that_lack_something(folders, refused, tmp_path, kind):  # noqa: F811
    alone = apart(folders(kind), tmp_path / "alone")
    parts = named(folders(kind), kind)
    (alone / "config.json").write_text('{"num_layers": ')
    assert f"cannot read {alone / 'config.json'}" in refused(alone, **parts)
    (alone / "config.json").unlink()
    bare = shutil.copytree(folders(kind) / "vae", tmp_path / "vae")
    (bare / "diffusion_pytorch_model.safetensors").unlink()
    assert f"{bare} holds no .safetensors file" in refused(alone, **{**parts, "vae": bare})
    assert f"there is no file {tmp_path / 'none.safetensors'}" in refused(
        alone, **{**parts, "t5": tmp_path / "none.safetensors"}
    )


def test_a_checkpoint_with_a_part_cut_out(folders, refused, tmp_path):  # noqa: F811
    parts = original(folders("sd3-medium"), "sd3-medium")
    tensors = joined(parts, parts)
    few = {
        name: value for name, value in tensors.items() if "clip_g.transformer.text_model.encoder.layers.1" not in name
    }
    message = refused(saved(few, tmp_path / "sd3.safetensors"))
    assert "the weights do not fit the model" in message
    assert "encoder.layers.1" in message
