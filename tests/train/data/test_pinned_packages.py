"""Nothing enters the training data but the archives that were pinned."""

import hashlib
import io
import tarfile
from base64 import b64encode
from pathlib import Path

import pytest

from triptych.errors import FileProblem
from triptych.train.data.art import STYLES
from triptych.train.data.fetch import Package, fetch, members, packages


def archive(path: Path, files: dict[str, bytes]) -> Package:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    digest = b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    return Package("@some/art", "1.0.0", f"sha512-{digest}", "MIT")


def test_fetch_downloads_once_and_keeps_what_it_has(tmp_path):
    package = archive(tmp_path / "registry/@some/art/-/art-1.0.0.tgz", {"a.json": b"1", "b.txt": b"2"})
    path = fetch(package, tmp_path / "cache", (tmp_path / "registry").as_uri())
    assert path.name == "some-art-1.0.0.tgz"
    assert list(members(path, (".json",))) == [("a.json", b"1")]
    assert fetch(package, tmp_path / "cache", "http://never.invalid") == path


def test_another_archive_than_the_pinned_one_is_refused_and_not_kept(tmp_path):
    package = archive(tmp_path / "registry/@some/art/-/art-1.0.0.tgz", {"a.json": b"1"})
    archive(tmp_path / "registry/@some/art/-/art-1.0.0.tgz", {"a.json": b"changed"})
    with pytest.raises(FileProblem, match=r"@some/art 1\.0\.0 should have sha512-"):
        fetch(package, tmp_path / "cache", (tmp_path / "registry").as_uri())
    assert not list((tmp_path / "cache").iterdir())


def test_a_damaged_archive_in_the_cache_is_refused(tmp_path):
    package = archive(tmp_path / "some-art-1.0.0.tgz", {"a.json": b"1"})
    (tmp_path / package.file).write_bytes(b"cut off")
    with pytest.raises(FileProblem, match="Delete it and run again"):
        fetch(package, tmp_path)


def test_a_registry_without_the_archive_is_named(tmp_path):
    package = archive(tmp_path / "art.tgz", {})
    with pytest.raises(FileProblem, match=r"none/@some/art/-/art-1\.0\.0\.tgz"):
        fetch(package, tmp_path / "cache", (tmp_path / "none").as_uri())


def test_every_style_is_pinned_once_with_a_licence():
    pinned = packages()
    assert sorted(package.style for package in pinned if package.style) == sorted(STYLES)
    assert all(package.integrity.startswith("sha512-") and package.licence for package in pinned)
    assert not any("openmoji" in package.name or "SA" in package.licence for package in pinned)
