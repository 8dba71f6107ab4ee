"""Files are written whole or not at all."""

import errno
import os

import pytest

from triptych.errors import FileProblem
from triptych.media import files


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_replacing_and_numbering(tmp_path):
    path = tmp_path / "a.png"
    assert files.write(path, b"1") == path
    assert files.write(path, b"2") == path
    assert files.write(path, b"3", replace=False) == tmp_path / "a-2.png"
    assert files.write(path, b"4", replace=False) == tmp_path / "a-3.png"
    assert [(tmp_path / name).read_bytes() for name in left(tmp_path)] == [b"3", b"4", b"2"]


def test_a_dangling_link_is_no_free_name(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere")
    assert files.write(tmp_path / "a.png", b"", replace=False).name == "a-2.png"


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "nput/output"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_no_half_file(tmp_path, monkeypatch, number, told, step):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    (tmp_path / "a.png").write_bytes(b"before")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(FileProblem, match=told):
        files.write(tmp_path / "a.png", b"after")
    assert left(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"before"


def test_an_interrupt_leaves_no_half_file(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write(tmp_path / "a.png", b"1")
    assert left(tmp_path) == []


def test_without_hard_links_names_are_still_numbered(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", none)
    names = [files.write(tmp_path / "a.png", b"1", replace=False).name for _ in range(3)]
    assert names == ["a.png", "a-2.png", "a-3.png"]
    assert len(left(tmp_path)) == 3


@pytest.mark.parametrize("name", ["none/a.png", "x" * 300 + ".png"])
def test_impossible_places(tmp_path, name):
    with pytest.raises(FileProblem):
        files.write(tmp_path / name, b"1")
    assert left(tmp_path) == []


def test_folders_are_tried(tmp_path):
    files.check_folder(tmp_path)
    assert left(tmp_path) == []
    with pytest.raises(FileProblem, match="mkdir -p"):
        files.check_folder(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(FileProblem, match="a file, not a folder"):
        files.check_folder(tmp_path / "file")


def test_unreadable(tmp_path):
    with pytest.raises(FileProblem, match="No such file"):
        files.read(tmp_path / "none")
    with pytest.raises(FileProblem, match="directory"):
        files.read(tmp_path)
