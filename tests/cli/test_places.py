"""Names of files."""

import os
from pathlib import Path

import pytest

from triptych.cli.places import plan, slug
from triptych.errors import FileProblem


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red Heart!", "a-red-heart"),
        ("  two\nlines\t", "two-lines"),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\con", "c-con"),
        ("ein Fuchs, größer", "ein-fuchs-größer"),
        ("赤いハート", "赤いハート"),
        ("🦊", "untitled"),
        ("", "untitled"),
        ("\udce9x", "x"),
        ("a" * 100, "a" * 40),
        ("word " * 20, "word-word-word-word-word-word-word-word"),
        ("-rf", "rf"),
        (".hidden", "hidden"),
    ],
)
def test_slugs_are_safe_names(prompt, name):
    assert slug(prompt) == name
    assert len(f"{slug(prompt)}-4294967295-999.png".encode()) < 255


def test_numbering(tmp_path):
    explicit = plan(str(tmp_path / "x.JPG"), "image")
    assert [path.name for path in explicit.paths("p", (3,))] == ["x.JPG"]
    assert [path.name for path in explicit.paths("p", (3, 4))] == ["x-1.JPG", "x-2.JPG"]
    assert explicit.replace
    ours = plan(str(tmp_path), "image", ".webp")
    assert [path.name for path in ours.paths("a p", (3, 4))] == ["a-p-3.webp", "a-p-4.webp"]
    assert not ours.replace


def test_home_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert plan("~/x.png", "image").folder == tmp_path


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_folders_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileProblem, match="may not write there"):
        plan(str(tmp_path / "x.png"), "image")


def test_a_folder_that_refuses_files_is_found_out(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(FileProblem, match="may not write there"):
        plan(str(tmp_path / "x.png"), "image")


@pytest.mark.parametrize("name", ["file/x.png", "x.png\0"])
def test_odd_places(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(FileProblem):
        plan(str(tmp_path / name), "image")
