"""Which drawings are taken: by Microsoft's list, without the five trademarks, one a concept and style."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from triptych.train.data.art import BLOCKED, drawings
from triptych.train.data.concepts import code_of, concepts

EMOJI = [
    ("1F4CE", "paperclip", 7),
    ("1F408", "cat", 3),
    ("2764-FE0F", "red heart", 0),
    ("1F43B", "bear", 3),
    ("1F52B", "water pistol", 6),
    ("1F1EB-1F1F7", "flag: France", 9),
]


def pack(path: Path, files: dict[str, object]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, value in files.items():
            content = value if isinstance(value, bytes) else json.dumps(value).encode()
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def known():
    return concepts([{"hexcode": h, "label": l, "group": g, "emoji": h} for h, l, g in EMOJI], {}, [])


def icons(*names, **aliases):
    return {"width": 8, "height": 8, "icons": {name: {"body": f"<{name}/>"} for name in names}, "aliases": aliases}


def test_3d_needs_microsofts_list_and_is_never_a_blocked_one(tmp_path, known):
    chars = {"1f4ce": "paperclip", "1f408": "cat"}
    flat = pack(tmp_path / "flat.tgz", {"chars.json": chars, "icons.json": icons("paperclip", "cat")})
    pictures = {"1f4ce.webp": b"clippy", "1f408.webp": b"cat", "2764-fe0f.webp": b"heart", "1f1eb-1f1f7.webp": b"flag"}
    raster = pack(tmp_path / "3d.tgz", dict(pictures))
    found = {(drawing.code, drawing.style) for drawing in drawings({"flat": flat, "3d": raster}, known)}
    assert found == {("1f408", "3d"), ("1f408", "flat"), ("1f4ce", "flat")}


def test_the_five_trademarks():
    assert sorted(BLOCKED) == ["1f3ae", "1f468-200d-1f4bb", "1f469-200d-1f4bb", "1f4ce", "1f9d1-200d-1f4bb"]


def test_icons_without_code_points_are_matched_by_name_alias_and_number(tmp_path, known):
    chars = {"1f43b": "bear"}
    noto = pack(
        tmp_path / "n.tgz", {"chars.json": chars, "icons.json": icons("bear", **{"bear-face": {"parent": "bear"}})}
    )
    other = pack(tmp_path / "o.tgz", {"chars.json": {}, "icons.json": icons("bear-face", "cat-1", "cat-2", "pistol")})
    found = {d.code: d.source for d in drawings({"noto": noto, "streamline": other}, known) if d.style == "streamline"}
    assert set(found) == {"1f43b", "1f408"}  # and no gun for the water pistol
    assert "<cat-1/>" in found["1f408"]


def test_a_mirrored_alias_is_mirrored(tmp_path, known):
    files = {"chars.json": {"1f408": "tac"}, "icons.json": icons("cat", tac={"parent": "cat", "hFlip": True})}
    [found] = drawings({"flat": pack(tmp_path / "flat.tgz", files)}, known)
    assert 'transform="translate(8 0) scale(-1 1)"><cat/>' in found.source


def test_concepts_leave_out_flags_and_say_labels_in_words(known):
    assert list(known) == ["1f4ce", "1f408", "2764", "1f43b", "1f52b"]
    assert code_of("0023-FE0F-20E3") == code_of("23-20e3")
    data = [
        {"hexcode": "1F468-200D-1F9B2", "label": "man: bald", "group": 1, "emoji": "x", "tags": ["bald", "hair_cut"]}
    ]
    [man] = concepts(data, {"x": ["Bald", ":D"]}, [{"1F468-200D-1F9B2": "bald_man"}]).values()
    assert (man.label, man.tags, man.names) == ("bald man", ("bald", "hair cut"), ())
