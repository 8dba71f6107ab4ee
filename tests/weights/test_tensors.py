"""Sets of tensors: from a file, from shards, from folders as diffusers and transformers write them."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from triptych.errors import WeightsError
from triptych.weights.files import TORCH, find, open_bundle, open_tensors
from triptych.weights.header import BITS

A, B = torch.arange(6.0).reshape(2, 3), torch.arange(4).to(torch.float16)


def index(folder, weight_map, name="model.safetensors.index.json"):
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": weight_map}))
    return folder


@pytest.fixture
def shards(tmp_path):
    save_file({"a": A}, tmp_path / "model-00001-of-00002.safetensors", {"format": "pt"})
    save_file({"b": B}, tmp_path / "model-00002-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    return index(tmp_path, names)


def test_every_dtype_of_torch_comes_back_equal(tmp_path):
    tensors = {
        name: torch.arange(1, 13).to(torch.uint8).view(getattr(torch, kind))
        if BITS[name] == 8 and name != "BOOL"
        else torch.ones(3, 2, dtype=getattr(torch, kind))
        for name, kind in TORCH.items()
        if hasattr(torch, kind) and not name.startswith("F8_E4M3F")
    }
    tensors |= {"scalar": torch.tensor(2.5), "none": torch.zeros(0, 4), "flat": torch.zeros(3, 0)}
    save_file(tensors, tmp_path / "x.safetensors")
    found = open_tensors(tmp_path / "x.safetensors")
    assert set(found.names()) == set(tensors)
    for name, tensor in tensors.items():
        read = found.read(name)
        assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape)
        assert found.shape(name) == tuple(tensor.shape)
        bits = (read.flatten().view(torch.uint8), tensor.flatten().view(torch.uint8))
        assert torch.equal(*bits)


def test_a_misaligned_file_is_read(tmp_path):
    table = {
        "odd": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [3, 27]},
    }
    text = json.dumps(table).encode()
    data = bytes(3) + A.numpy().tobytes()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    assert torch.equal(open_tensors(tmp_path / "x.safetensors").read("a"), A)


def test_writing_into_what_was_read_leaves_the_file(tmp_path):
    save_file({"a": A}, tmp_path / "x.safetensors")
    tensors = open_tensors(tmp_path / "x.safetensors")
    tensors.read("a").zero_()
    assert torch.equal(open_tensors(tmp_path / "x.safetensors").read("a"), A)


def test_a_dtype_that_torch_lacks_is_told(tmp_path):
    text = json.dumps({"a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(3))
    with pytest.raises(WeightsError, match="F6_E2M3, which torch"):
        open_tensors(tmp_path / "x.safetensors").read("a")


def test_names_that_are_not_there(tmp_path):
    save_file({"conv.weight": A}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"no tensor 'conv.wieght'. The nearest: 'conv.weight'"):
        open_tensors(tmp_path / "x.safetensors").read("conv.wieght")


def test_a_file_that_shrinks_meanwhile_is_told(tmp_path):
    save_file({"a": A}, tmp_path / "x.safetensors")
    tensors = open_tensors(tmp_path / "x.safetensors")
    os.truncate(tmp_path / "x.safetensors", 90)
    with pytest.raises(WeightsError, match="has become shorter"):
        tensors.read("a")


def test_parts_by_prefix_share_the_map(tmp_path):
    save_file({"unet.a": A, "vae.a": A + 1, "vae.b": B}, tmp_path / "x.safetensors", {"made": "by"})
    whole = open_tensors(tmp_path / "x.safetensors")
    part = whole.under("vae.")
    assert set(part.names()) == {"a", "b"}
    assert part.metadata == {"made": "by"}
    assert torch.equal(part.read("a"), A + 1)
    assert part.read("b").untyped_storage().data_ptr() == whole.read("unet.a").untyped_storage().data_ptr()


@pytest.mark.parametrize("name", ["", "model.safetensors.index.json"])
def test_shards_are_one_set(shards, name):
    found = open_tensors(shards / name)
    assert set(found.names()) == {"a", "b"}
    assert torch.equal(found.read("b"), B)
    assert found.metadata == {"format": "pt"}


@pytest.mark.parametrize(
    "name",
    [
        "../x.safetensors",
        "/etc/x.safetensors",
        "..",
        "sub/x.safetensors",
        "a\\x.safetensors",
        "C:x.safetensors",
        "x.bin",
    ],
)
def test_an_index_may_not_lead_outside(tmp_path, name):
    with pytest.raises(WeightsError, match="beside it"):
        find(index(tmp_path, {"a": name}))


def test_broken_indexes(shards):
    path = shards / "model.safetensors.index.json"
    (shards / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"1 of 2 shards are missing: model-00002-of-00002.safetensors"):
        open_tensors(shards)
    for text, reason in [
        (b"{", "cannot read"),
        (b"[1]", "no JSON object"),
        (b"{}", "no weight_map"),
        (b'{"weight_map": {"a": 1}}', "no weight_map"),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * 25_000_001, "longer than 25000000 bytes"),
    ]:
        path.write_bytes(text)
        with pytest.raises(WeightsError, match=reason):
            find(path)


def test_a_tensor_in_two_shards_is_an_error(shards):
    save_file({"a": A}, shards / "model-00002-of-00002.safetensors")
    with pytest.raises(WeightsError, match="keep one of them"):
        open_tensors(shards)


def test_variants(tmp_path):
    save_file({"a": A.half()}, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    assert open_tensors(tmp_path).dtype("a") == "F16"  # the only one
    save_file({"a": A}, tmp_path / "diffusion_pytorch_model.safetensors")
    assert open_tensors(tmp_path).dtype("a") == "F32"
    assert open_tensors(tmp_path, "fp16").dtype("a") == "F16"
    with pytest.raises(WeightsError, match="no variant fp8; it has: one without a name, fp16"):
        open_tensors(tmp_path, "fp8")
    (tmp_path / "diffusion_pytorch_model.safetensors").rename(tmp_path / "diffusion_pytorch_model.ema.safetensors")
    with pytest.raises(WeightsError, match="no variant without a name; it has: ema, fp16"):
        open_tensors(tmp_path)


def test_sharded_variants(tmp_path):
    save_file({"a": A}, tmp_path / "diffusion_pytorch_model.fp16-00001-of-00001.safetensors")
    names = {"a": "diffusion_pytorch_model.fp16-00001-of-00001.safetensors"}
    index(tmp_path, names, "diffusion_pytorch_model.safetensors.index.fp16.json")
    assert open_tensors(tmp_path, "fp16").names() == ("a",)


def test_folders_without_an_answer(tmp_path):
    with pytest.raises(WeightsError, match=r"no .safetensors file"):
        find(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"PK\x03\x04archive/data.pkl")
    with pytest.raises(WeightsError, match="is a pickle"):
        open_tensors(tmp_path)
    save_file({"a": A}, tmp_path / "one.safetensors")
    assert open_tensors(tmp_path).names() == ("a",)
    save_file({"a": A}, tmp_path / "two.safetensors")
    with pytest.raises(WeightsError, match=r"several files: one.safetensors, two.safetensors. Name one"):
        open_tensors(tmp_path)


def folder(path):
    """A diffusers folder: only the unet comes in half precision as well."""
    told = {"_class_name": "X", "unet": ["diffusers", "U"], "vae": ["diffusers", "V"], "tokenizer": ["t", "T"]}
    told |= {"safety_checker": ["s", "S"], "gone": [None, None], "../up": ["u", "U"], "..": ["u", "U"], "scale": 1}
    (path / "model_index.json").write_text(json.dumps(told))
    for name in ("unet", "vae", "tokenizer", "safety_checker"):
        (path / name).mkdir()
        (path / name / "config.json").write_text(json.dumps({"name": name}))
    save_file({"a": A}, path / "unet" / "diffusion_pytorch_model.safetensors")
    save_file({"a": A.half()}, path / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    save_file({"a": A}, path / "vae" / "diffusion_pytorch_model.safetensors")
    save_file({"a": A}, path / "safety_checker" / "model.safetensors")
    return path


def test_a_diffusers_folder(tmp_path):
    found = open_bundle(folder(tmp_path))
    assert set(found.sets) == {"unet", "vae"}
    assert found.configs["unet"] == {"name": "unet"}
    assert found.configs[""]["_class_name"] == "X"
    assert set(found.configs) == {"", "unet", "vae", "tokenizer"}
    half = open_bundle(tmp_path, "fp16")
    assert (half.sets["unet"].dtype("a"), half.sets["vae"].dtype("a")) == ("F16", "F32")
    with pytest.raises(WeightsError, match=r"no part of .* has the variant 'fp8'"):
        open_bundle(tmp_path, "fp8")
    lone = open_bundle(tmp_path / "vae")
    assert (set(lone.sets), lone.configs[""]) == ({""}, {"name": "vae"})
    alone = open_bundle(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    assert alone.configs[""] == {"name": "vae"}


def test_other_files_take_no_stranger_s_configuration(tmp_path):
    save_file({"a": A}, tmp_path / "mine.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert open_bundle(tmp_path / "mine.safetensors").configs[""] == {}


def own_memory():
    """Kilobytes of this process that are no pages of a file."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by /proc")
def test_nothing_is_held_twice(tmp_path):
    """Half a gigabyte, mapped and summed, takes a few megabytes of memory of our own."""
    size = 500 * 2**20
    table = {f"t{k}": {"dtype": "U8", "shape": [size // 10], "data_offsets": [k * size // 10, (k + 1) * size // 10]}
             for k in range(10)}  # fmt: skip
    text = json.dumps(table).encode()
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)  # a hole: the disk holds nothing
    tensors = open_tensors(path)
    before = own_memory()
    held = [tensors.read(name) for name in tensors.names()]
    assert sum(int(tensor[::4096].sum()) for tensor in held) == 0
    assert own_memory() - before < 5_000
