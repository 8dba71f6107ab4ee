"""Encoded prompts on disk: given back exactly, bounded, and never believed where they are damaged."""

import os

import pytest
import torch
from safetensors.torch import save_file

from triptych.errors import FileProblem
from triptych.text.kept import Kept, key

IDS = [3, 9, 1, 0, 0]
SAID = key("tower", IDS, False, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_kept_is_given_back_bit_by_bit(tmp_path, dtype):
    tensor = torch.randn(5, 8).to(dtype)
    Kept(tmp_path / "new" / "folder").keep(SAID, tensor)
    found = Kept(tmp_path / "new" / "folder").recall(SAID)
    assert found.dtype == dtype
    assert torch.equal(found, tensor)
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [f"{SAID}.safetensors"]


def test_a_view_and_a_tensor_of_inference_are_kept_as_they_are(tmp_path):
    with torch.inference_mode():
        whole = torch.randn(8, 5).T
        Kept(tmp_path).keep(SAID, whole[:3])
    assert torch.equal(Kept(tmp_path).recall(SAID), whole[:3])


def test_all_that_it_depends_on_is_in_the_key():
    others = [
        key("another", IDS, False, torch.float32),
        key("tower", [*IDS, 0], False, torch.float32),
        key("tower", [9, 3, 1, 0, 0], False, torch.float32),
        key("tower", IDS, True, torch.float32),
        key("tower", IDS, False, torch.bfloat16),
    ]
    assert len({SAID, *others}) == 6
    assert key("tower", tuple(IDS), False, torch.float32) == SAID
    assert len(SAID) == 64


def damaged(path, how):
    data = bytearray(path.read_bytes())
    if how == "short":
        del data[-1:]
    elif how == "flipped":
        data[-1] ^= 1
    elif how == "nothing":
        data.clear()
    elif how == "noise":
        data[:] = os.urandom(len(data))
    path.write_bytes(bytes(data))
    if how == "others":
        save_file({"said": torch.zeros(5, 8)}, path)
    elif how == "unnamed":
        save_file({"other": torch.zeros(5, 8)}, path)


@pytest.mark.parametrize("how", ["short", "flipped", "nothing", "noise", "others", "unnamed"])
def test_what_is_damaged_is_not_there_and_is_written_anew(tmp_path, how):
    kept, tensor = Kept(tmp_path), torch.randn(5, 8)
    kept.keep(SAID, tensor)
    damaged(tmp_path / f"{SAID}.safetensors", how)
    assert kept.recall(SAID) is None
    kept.keep(SAID, tensor)
    assert torch.equal(kept.recall(SAID), tensor)


def test_what_was_used_longest_ago_goes(tmp_path):
    names = [key(str(number), IDS, False, torch.float32) for number in range(4)]
    one = torch.zeros(1000)
    Kept(tmp_path).keep(names[0], one)
    size = (tmp_path / f"{names[0]}.safetensors").stat().st_size
    kept = Kept(tmp_path, most=3 * size)
    for second, name in enumerate(names[1:3]):
        kept.keep(name, one)
        os.utime(tmp_path / f"{name}.safetensors", (1000 + second, 1000 + second))
    os.utime(tmp_path / f"{names[0]}.safetensors", (999, 999))
    assert kept.recall(names[0]) is not None  # so that it is the newest
    (tmp_path / "of somebody else.txt").write_text("x" * 10 * size)
    kept.keep(names[3], one)
    assert [kept.recall(name) is not None for name in names] == [True, False, True, True]
    assert (tmp_path / "of somebody else.txt").exists()


def test_what_a_process_broke_off_goes_too(tmp_path):
    broken = tmp_path / "tmpabc.part"
    broken.write_bytes(b"x" * 5000)
    os.utime(broken, (1000, 1000))
    Kept(tmp_path, most=5000).keep(SAID, torch.zeros(100))
    assert [path.name for path in tmp_path.iterdir()] == [f"{SAID}.safetensors"]


def test_a_write_that_fails_leaves_nothing_and_says_where(tmp_path, monkeypatch):
    place = tmp_path / "file"
    place.write_text("")
    with pytest.raises(FileProblem, match=r"file: encoded prompts cannot be kept there .* another folder"):
        Kept(place).keep(SAID, torch.zeros(3))
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(FileProblem, match="No space left"):
        Kept(tmp_path / "full").keep(SAID, torch.zeros(3))
    assert not list((tmp_path / "full").iterdir())
    assert Kept(tmp_path / "full").recall(SAID) is None
