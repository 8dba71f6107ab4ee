"""Two soundfonts out of Debian packages, pinned and checked, and what plays them.

FluidR3 (MIT, Frank Wen): the General MIDI bank, and the GS bank with its sound effects. Only the recipe needs them, and
`tinysoundfont`, which plays them without any system library.
"""

import hashlib
import io
import lzma
import shutil
import tarfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from triptych.errors import FileProblem

__all__ = ["FONTS", "Font", "build", "synth"]

MIRROR = "https://deb.debian.org/debian/pool/main/f/fluid-soundfont"
TIMEOUT = 60.0  # seconds without an answer
CHUNK = 1 << 18  # bytes
HEADER = 60  # bytes, of each member of a .deb
INSTALL = "pip install --no-deps tinysoundfont"  # its dependency, which plays aloud, needs a compiler


@final
@dataclass(frozen=True, slots=True)
class Font:
    """A package of one soundfont: its file, the archive's SHA-256, and the soundfont inside."""

    package: str
    sha256: str
    name: str


FONTS: Final = {
    "gm": Font(
        "fluid-soundfont-gm_3.1-5.3_all.deb",
        "6f531493ac4e4d9772fd96b2488ea1790af81c196135fbdd25997da0781fc60e",
        "FluidR3_GM.sf2",
    ),
    "gs": Font(
        "fluid-soundfont-gs_3.1-5.3_all.deb",
        "f9c5b171ce1cd6c05c5dd65e2ada61c0951ef491f1c67d077aaecd6c9d6ef3e4",
        "FluidR3_GS.sf2",
    ),
}


def build(folder: Path, mirror: str = MIRROR) -> None:
    """Fetches and unpacks both soundfonts into `folder` where they are not there yet: 122 MB to fetch, 150 kept.

    Raises FileProblem where one cannot be had, or is not what was pinned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for font in FONTS.values():
        if not (folder / font.name).exists():
            _unpack(_fetched(font, folder, mirror), font, folder)


def synth(folder: Path, rate: int) -> tuple[Any, dict[str, int]]:
    """A player at this many samples a second, and the number that it gives each font. Raises FileProblem."""
    try:
        import tinysoundfont
    except ImportError as problem:
        raise FileProblem(f"tinysoundfont is not installed; the recipe renders sounds with it: {INSTALL}") from problem
    player = tinysoundfont.Synth(samplerate=rate)
    return player, {name: player.sfload(str(folder / font.name)) for name, font in FONTS.items()}


def _fetched(font: Font, folder: Path, mirror: str) -> Path:
    path, url = folder / font.package, f"{mirror}/{font.package}"
    partial = path.with_suffix(".part")
    try:
        if not path.exists():
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, partial.open("wb") as out:
                shutil.copyfileobj(answer, out, CHUNK)
            partial.replace(path)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise FileProblem(f"{url}: {problem}. Check the network, then run again.") from problem
    finally:
        partial.unlink(missing_ok=True)
    if found != font.sha256:
        raise FileProblem(f"{path} should have sha256 {font.sha256}, found {found}. Delete it and run again.")
    return path


def _unpack(package: Path, font: Font, folder: Path) -> None:
    """The soundfont out of the package, written whole or not at all."""
    partial = folder / (font.name + ".part")
    with tarfile.open(fileobj=io.BytesIO(_data(package))) as tar:
        [member] = [one for one in tar if Path(one.name).name == font.name and one.isfile()]
        file = tar.extractfile(member)
        assert file is not None  # isfile() was asked above
        with partial.open("wb") as out:
            shutil.copyfileobj(file, out, CHUNK)
    partial.replace(folder / font.name)


def _data(package: Path) -> bytes:
    """The tar of what a .deb installs. Raises FileProblem."""
    for name, content in _members(package.read_bytes()):
        if name.startswith("data.tar"):
            return lzma.decompress(content) if name.endswith(".xz") else content
    raise FileProblem(f"{package} has no data.tar in it: it is no Debian package.")


def _members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each member of an ar archive."""
    place = len(b"!<arch>\n")
    while place + HEADER <= len(archive):
        header = archive[place : place + HEADER].decode("ascii", "replace")
        size = int(header[48:58])
        place += HEADER
        yield header[:16].strip().rstrip("/"), archive[place : place + size]
        place += size + size % 2
