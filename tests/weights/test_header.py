"""Headers of safetensors files: what is right is read, and whatever else there is, is refused with a reason."""

import json
import os
import shlex
import sys
import tracemalloc

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from triptych.errors import WeightsError
from triptych.weights import header

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def written(path, table, data=b"", length=None):
    """A file with this header (text or object) and this data."""
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.safetensors"


def test_it_reads_what_the_library_writes(path):
    names = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int64", "int32", "uint8")
    tensors = {name: torch.zeros(2, 3, dtype=getattr(torch, name)) for name in (*names, "bool", "complex64")}
    tensors |= {"none": torch.zeros(0, 4), "one": torch.tensor(1.0)}
    save_file(tensors, path, {"format": "pt"})
    found = header.read(path)
    assert found.metadata == {"format": "pt"}
    assert {name: entry.shape for name, entry in found.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }
    assert found.tensors["float8_e4m3fn"].dtype == "F8_E4M3"
    assert found.tensors["one"].count == 1
    assert found.tensors["none"].count == 0
    assert max(entry.stop for entry in found.tensors.values()) == path.stat().st_size


def test_a_file_without_tensors_is_one(path):
    assert header.read(written(path, {})).tensors == {}


def test_a_name_of_another_kind_does_not_matter(tmp_path):
    assert header.read(written(tmp_path / "x.ckpt", {"a": F32}, bytes(8))).tensors["a"].shape == (2,)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (b'{"a": {}, "a": {}}', "'a' is there twice"),
        (b'{"a": {"dtype": "F32", "dtype": "F32"}}', "'dtype' is there twice"),
        (b'{"a": NaN}', "no number"),
        (b'{"a": \xff}', "utf-8"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "header is broken"),
        (b'{"a": 1', "header is broken"),
        (b'{"a": 1} x', "header is broken"),
        (b"{", "header is broken"),
        ({"__metadata__": {"a": 1}}, "something else than texts"),
        ({"__metadata__": ["a"]}, "something else than texts"),
        ({"": F32}, "no printable text"),
        ({"a\x1b[2J": F32}, "no printable text"),
        (b'{"\\ud800": 1}', "no printable text"),
        ({"a": [1]}, "not told by"),
        ({"a": {**F32, "more": 1}}, "not told by"),
        ({"a": {**F32, "dtype": "F33"}}, "no known dtype"),
        ({"a": {**F32, "dtype": ["F32"]}}, "no known dtype"),
        ({"a": {**F32, "shape": [-2]}}, "no possible shape"),
        ({"a": {**F32, "shape": [2.0]}}, "no possible shape"),
        ({"a": {**F32, "shape": [True, 2]}}, "no possible shape"),
        ({"a": {**F32, "shape": [2**62, 4]}}, "no possible shape"),
        ({"a": {**F32, "shape": [1] * 65}}, "no possible shape"),
        ({"a": {**F32, "shape": 2}}, "no possible shape"),
        ({"a": {**F32, "data_offsets": [0]}}, "no possible offsets"),
        ({"a": {**F32, "data_offsets": [-8, 0]}}, "no possible offsets"),
        ({"a": {**F32, "data_offsets": [0, 2**64]}}, "no possible offsets"),
        ({"a": {**F32, "data_offsets": [8, 0]}}, "do not hold"),
        ({"a": {**F32, "data_offsets": [0, 4]}}, "do not hold"),
        ({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, "overlaps"),
        ({"a": F32, "b": F32}, "overlaps"),
        ({"a": F32, "b": {**F32, "data_offsets": [12, 20]}}, "leaves a gap"),
        ({"a": {**F32, "data_offsets": [4, 12]}}, "leaves a gap"),
        ({"a": {**F32, "data_offsets": [0, 2**50], "shape": [2**48]}}, "cut off"),
        ({}, "64 bytes after the last tensor"),
    ],
)
def test_broken_headers_are_refused(path, table, reason):
    with pytest.raises(WeightsError, match=reason) as found:
        header.read(written(path, table, bytes(64)))
    assert str(path) in str(found.value)


def test_a_cut_file_says_what_is_missing(path):
    save_file({"a": torch.zeros(1000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(WeightsError, match=f"cut off: 100 bytes of {len(whole)} are missing. Download it again"):
        header.read(path)
    path.write_bytes(whole[:20])
    with pytest.raises(WeightsError, match=r"cut off: \d+ bytes or more are missing"):
        header.read(path)


def test_a_long_header_is_not_read(path):
    text = b'{"a": 1}'
    with path.open("wb") as file:
        file.write((header.LONGEST + 1).to_bytes(8, "little") + text)
        file.truncate(header.LONGEST + 100)
    tracemalloc.start()
    with pytest.raises(WeightsError, match=f"a header of {header.LONGEST + 1} bytes"):
        header.read(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1_000_000


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 135\n"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("x.safetensors", b"", "is empty"),
        ("x.safetensors", LFS, "git lfs pull"),
        ("x.safetensors", b"<!DOCTYPE html><html>", "web page"),
        ("x.safetensors", b"\n  <html>", "web page"),
        ("x.safetensors", b"Entry not found", "a text, not weights: 'Entry not found'"),
        ("x.safetensors", b'{"error": "Access denied"}', "a text, not weights"),
        ("x.safetensors", b"\x80\x02}q\x00.", "is a pickle"),
        ("x.safetensors", b"PK\x03\x04" + bytes(26) + b"archive/data.pkl", "is a pickle"),
        ("x.safetensors", b"PK\x03\x04" + bytes(26) + b"model.safetensors", "zip archive"),
        ("x.CKPT", b"\x00\x01\x02", "is a pickle"),
        ("x.safetensors", b"\x00\x01\x02", "no safetensors file"),
        ("x.safetensors", b"\xff" * 100, "no safetensors file"),
    ],
)
def test_other_files_are_told_apart(tmp_path, name, data, reason):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=reason):
        header.read(path)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place, reason in [
        (tmp_path, "no file"),
        (tmp_path / "pipe", "no file"),
        (tmp_path / "none", "No such file"),
        (tmp_path / "x\0", "null"),
    ]:
        with pytest.raises(WeightsError, match=reason):
            header.read(place)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "bare"])
def test_the_way_out_of_a_pickle_works(tmp_path, monkeypatch, old):
    path = tmp_path / "it's $HOME.ckpt"
    saved = {"state_dict": {"a": torch.arange(3.0)}, "epoch": 7}
    torch.save(saved, path, _use_new_zipfile_serialization=not old)
    path.rename(tmp_path / "hidden.safetensors")
    with pytest.raises(WeightsError, match="would run"):
        header.read(tmp_path / "hidden.safetensors")
    (tmp_path / "hidden.safetensors").rename(path)
    with pytest.raises(WeightsError, match="would run") as found:
        header.read(path)
    if not old:
        command = shlex.split(str(found.value).partition("convert it once: ")[2])
        monkeypatch.setattr(sys, "argv", command[2:])
        exec(command[2], {})
        assert header.read(path.with_suffix(".safetensors")).tensors["a"].shape == (3,)


SMALL = st.integers(0, 9)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*header.BITS, "X"]),
        "shape": st.lists(SMALL, max_size=3),
        "data_offsets": st.lists(st.integers(0, 40), min_size=2, max_size=2).map(sorted),
    }
)
TABLE = st.dictionaries(st.text(min_size=1, max_size=3) | st.just("__metadata__"), ENTRY | ANY, max_size=3)


def read_or_refused(path):
    try:
        return header.read(path)
    except WeightsError:
        return None


@given(st.binary(max_size=200))
@example(b"\x10" + bytes(7) + b"{" * 16)
@settings(max_examples=100, deadline=None)
def test_any_bytes_give_a_header_or_a_reason(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "bytes.safetensors"
    path.write_bytes(data)
    read_or_refused(path)


@given(TABLE, st.integers(0, 60), st.integers(-3, 3))
@settings(max_examples=100, deadline=None)
def test_any_table_gives_a_header_or_a_reason(tmp_path_factory, table, size, more):
    path = tmp_path_factory.getbasetemp() / "table.safetensors"
    text = json.dumps(table).encode()
    written(path, text, bytes(size), max(len(text) + more, 0))
    if read_or_refused(path) is not None:
        safe_open(path, "pt")  # never looser than the library


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_bits_that_turn(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "turned.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(5, dtype=torch.float16)}, path, {"format": "pt"})
    raw = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=3)):
        raw[place] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    if read_or_refused(path) is not None:
        safe_open(path, "pt")
