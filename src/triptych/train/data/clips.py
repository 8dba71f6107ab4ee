"""Animated pictures as short loops of RGBA frames: one file that processes map into memory, a JSON file beside it.

Every loop is told in LENGTH seconds at RATE frames a second: one that is shorter is repeated, and its speed changed by
as little as makes whole repeats fit. The licence rule: a moving picture is taken where Microsoft's own list of what it
released has it, and without the laptops that show its trademark.
"""

import hashlib
import io
import json
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triptych.errors import FileProblem
from triptych.train.data.art import BLOCKED, released
from triptych.train.data.concepts import Concept, code_of
from triptych.train.data.fetch import Package, fetch, members, packages

__all__ = ["FRAMES", "LENGTH", "RATE", "Clips", "build", "sampled", "write"]

PINS = Path(__file__).with_name("moving.toml")
SIDE, RATE, LENGTH = 128, 12, 3.0  # pixels, frames a second, seconds
FRAMES = round(RATE * LENGTH)
VERSION = 1  # of the two files; raise it when their content changes
PIXELS, INDEX = "clips-128.npy", "clips.json"
SCREEN = "-1f4bb"  # ends the codes of people with a laptop
STILL = 40.0  # ms a frame where a file does not say


@final
@dataclass(frozen=True, slots=True)
class Clips:
    """`pixels` (N, FRAMES, 128, 128, 4) uint8, straight alpha, mapped from the file; `codes` of what they show."""

    pixels: NDArray[np.uint8]
    codes: tuple[str, ...]

    @classmethod
    def open(cls, folder: Path) -> "Clips":
        """Raises FileProblem where `build` has not run."""
        if not (folder / INDEX).exists():
            raise FileProblem(f"{folder / INDEX} is missing: call triptych.train.data.clips.build(folder) first.")
        return cls(np.load(folder / PIXELS, mmap_mode="r"), tuple(json.loads((folder / INDEX).read_text())["codes"]))


def build(folder: Path, concepts: Mapping[str, Concept], processes: int = 2) -> None:
    """Fetches and resamples every clip into `folder`, 1.7 GB, unless that was done already with the same pins.

    concepts: those of the sprites that lie there already; only they may move.
    """
    pinned = packages(PINS)
    made_from = manifest(pinned)
    if (folder / INDEX).exists() and json.loads((folder / INDEX).read_text())["made_from"] == made_from:
        return
    [flat] = [package for package in packages() if package.style == "flat"]
    allowed = {code for code in released(fetch(flat, folder / "npm"), concepts) if not code.endswith(SCREEN)}
    archives = [fetch(package, folder / "npm") for package in pinned]
    write(folder, dict(_moving(archives, allowed - BLOCKED)), made_from, processes)


def write(folder: Path, found: Mapping[str, bytes], made_from: str, processes: int = 2) -> None:
    """Resamples the animated pictures, by code, into the two files; the index comes last."""
    codes = sorted(found)
    partial = folder / (PIXELS + ".part")
    pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(codes), FRAMES, SIDE, SIDE, 4))
    for n, frames in enumerate(_each([found[code] for code in codes], processes)):
        pixels[n] = frames
    pixels.flush()
    del pixels
    partial.replace(folder / PIXELS)
    partial = folder / (INDEX + ".part")
    partial.write_text(json.dumps({"version": VERSION, "made_from": made_from, "codes": codes}))
    partial.replace(folder / INDEX)


def _each(contents: list[bytes], processes: int) -> Iterator[NDArray[np.uint8]]:
    if processes < 2:
        yield from map(sampled, contents)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(sampled, contents, chunksize=4)


def manifest(pinned: Iterable[Package]) -> str:
    """One checksum of everything that decides the result."""
    parts = [f"{VERSION} {SIDE} {RATE} {LENGTH}", *(f"{package.name} {package.integrity}" for package in pinned)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def sampled(content: bytes) -> NDArray[np.uint8]:
    """An animated picture as (FRAMES, 128, 128, 4) straight alpha: whole repeats of its loop in LENGTH seconds."""
    with Image.open(io.BytesIO(content)) as image:
        ends = np.cumsum([_shown(image, n) for n in range(getattr(image, "n_frames", 1))]) / 1000  # seconds
        repeats = max(1, round(LENGTH / ends[-1]))
        times = (np.arange(FRAMES) + 0.5) / FRAMES * repeats % 1 * ends[-1]
        wanted = np.searchsorted(ends, times, side="right").clip(max=len(ends) - 1)
        small = {n: _small(image, n) for n in sorted(set(wanted.tolist()))}
    return np.stack([small[n] for n in wanted.tolist()])


def _shown(image: Image.Image, frame: int) -> float:
    """How long a frame is shown, in ms."""
    image.seek(frame)
    image.load()
    return float(image.info.get("duration") or STILL)


def _small(image: Image.Image, frame: int) -> NDArray[np.uint8]:
    image.seek(frame)
    premultiplied = image.convert("RGBA").convert("RGBa")
    return np.asarray(premultiplied.resize((SIDE, SIDE), Image.Resampling.BOX).convert("RGBA"))


def _moving(archives: Iterable[Path], allowed: set[str]) -> Iterator[tuple[str, bytes]]:
    for archive in archives:
        for name, content in members(archive, (".webp",)):
            code = code_of(Path(name).stem) if _is_code(Path(name).stem) else ""
            if code in allowed:
                with Image.open(io.BytesIO(content)) as image:
                    if getattr(image, "n_frames", 1) > 1:
                        yield code, content


def _is_code(stem: str) -> bool:
    return all(part and not set(part) - set("0123456789abcdef") for part in stem.split("-"))
