"""All drawings as 128-pixel RGBA sprites in one file that processes map into memory, and a JSON file beside it.

A sprite is cut to what is drawn, and its longer side fills the frame, so that composing needs no measuring and mostly
shrinks. Symbols keep their own margins: a small square must stay small. All resizing is done in premultiplied alpha,
as transparent pixels would otherwise bleed their colour into edges.
"""

import hashlib
import io
import json
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triptych.errors import FileProblem
from triptych.train.data.art import FLUENT, STYLES, Drawing, drawings
from triptych.train.data.concepts import Concept, concepts
from triptych.train.data.fetch import Package, fetch, members, packages

__all__ = ["SIDE", "Sprite", "Sprites", "build", "write"]

SIDE = 128  # pixels
VERSION = 1  # of the two files; raise it when their content changes
SYMBOLS = 8  # the group that keeps its margins
PIXELS, INDEX = "sprites-128.npy", "sprites.json"
SHORTCODES = ("joypixels", "github", "iamcal", "emojibase", "cldr")
MOST_ENLARGED = 1.6  # a drawing that is tiny in its own frame stays somewhat small
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels
Row = tuple[str, str, Box]  # code, style, box
INK = 8  # alpha from which a pixel counts as drawn


@final
@dataclass(frozen=True, slots=True)
class Sprite:
    """One picture: row `index` of the pixels; `box` (left, top, right, bottom) holds all that is drawn, in pixels."""

    index: int
    code: str
    style: str
    box: Box

    @property
    def fluent(self) -> bool:
        """Whether it is of Microsoft's family, whose members are held out together."""
        return self.style in FLUENT


@final
@dataclass(frozen=True, slots=True)
class Sprites:
    """`pixels` (N, 128, 128, 4) uint8, straight alpha, mapped from the file; concepts by code."""

    pixels: NDArray[np.uint8]
    sprites: tuple[Sprite, ...]
    concepts: Mapping[str, Concept]

    @classmethod
    def open(cls, folder: Path) -> "Sprites":
        """Raises FileProblem where `build` has not run."""
        if not (folder / INDEX).exists():
            raise FileProblem(f"{folder / INDEX} is missing: call triptych.train.data.scenes.build(folder) first.")
        index = json.loads((folder / INDEX).read_text())
        sprites = tuple(Sprite(n, code, style, tuple(box)) for n, (code, style, box) in enumerate(index["sprites"]))
        known = {entry["code"]: Concept(**_tuples(entry)) for entry in index["concepts"]}
        return cls(np.load(folder / PIXELS, mmap_mode="r"), sprites, known)

    def styles(self) -> dict[str, dict[str, int]]:
        """Code -> style -> index of the sprite."""
        found: dict[str, dict[str, int]] = {}
        for sprite in self.sprites:
            found.setdefault(sprite.code, {})[sprite.style] = sprite.index
        return found


def build(folder: Path, processes: int = 2) -> None:
    """Fetches and rasterises everything into `folder`, unless that was done already with the same pins."""
    pinned = packages()
    if _built(folder, manifest(pinned)):
        return
    archives = {package.name: fetch(package, folder / "npm") for package in pinned}
    known = _concepts(archives)
    art = drawings({package.style: archives[package.name] for package in pinned if package.style}, known)
    write(folder, art, known, manifest(pinned), processes)


def manifest(pinned: Iterable[Package]) -> str:
    """One checksum of everything that decides the result."""
    parts = [f"{VERSION} {SIDE}", *(f"{package.name} {package.integrity}" for package in pinned)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def write(folder: Path, art: list[Drawing], known: Mapping[str, Concept], made_from: str, processes: int = 2) -> None:
    """Rasterises the drawings into the two files; the index comes last, so it never names pixels that are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / (PIXELS + ".part")
    pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(art), SIDE, SIDE, 4))
    rows: list[Row] = []
    jobs = [(drawing.source, known[drawing.code].group != SYMBOLS) for drawing in art]
    for n, sprite in enumerate(_each(jobs, processes)):
        pixels[n] = sprite
        rows.append((art[n].code, art[n].style, _box(sprite)))
    pixels.flush()
    del pixels
    with partial.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    partial.replace(folder / PIXELS)
    _index(folder, known, rows, {"version": VERSION, "made_from": made_from, "sha256": digest})


def rasterise(job: tuple[str | bytes, bool]) -> NDArray[np.uint8]:
    """(source, whether to cut the margins) -> (128, 128, 4) straight alpha, the drawing centred."""
    source, cut = job
    image = _decode(source, 2 * SIDE)
    left, top, right, bottom = box = _box(np.asarray(image)) if cut else (0, 0, image.width, image.height)
    longest = max(right - left, bottom - top)
    zoom = min(1.0, MOST_ENLARGED * longest / max(image.size))
    if cut and longest * 1.5 < 2 * SIDE and isinstance(source, str):  # drawn small: draw it again, larger
        image = _decode(source, round(2 * SIDE * 2 * SIDE / longest))
        box = _box(np.asarray(image))
    cropped = image.crop(box).convert("RGBa")
    scale = SIDE * zoom / max(cropped.size)
    width, height = (max(1, round(length * scale)) for length in cropped.size)
    small = cropped.resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")
    frame = Image.new("RGBA", (SIDE, SIDE))
    frame.paste(small, ((SIDE - width) // 2, (SIDE - height) // 2))
    return np.asarray(frame)


def _decode(source: str | bytes, side: int) -> Image.Image:
    if isinstance(source, str):
        import resvg_py  # wanted only where sprites are built

        source = bytes(resvg_py.svg_to_bytes(svg_string=source, width=side, skip_system_fonts=True))
    return Image.open(io.BytesIO(source)).convert("RGBA")


def _box(pixels: NDArray[np.uint8]) -> Box:
    """(left, top, right, bottom) of what is drawn in (H, W, 4); all of it where nothing is."""
    drawn = pixels[..., 3] >= INK
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    if not len(rows):
        return 0, 0, pixels.shape[1], pixels.shape[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _index(folder: Path, known: Mapping[str, Concept], rows: list[Row], origin: dict[str, Any]) -> None:
    drawn = {code for code, _, _ in rows}
    listed = [asdict(concept) for code, concept in known.items() if code in drawn]
    partial = folder / (INDEX + ".part")
    partial.write_text(
        json.dumps({**origin, "styles": STYLES, "sprites": rows, "concepts": listed}, ensure_ascii=False)
    )
    partial.replace(folder / INDEX)


def _each(jobs: list[tuple[str | bytes, bool]], processes: int) -> Iterator[NDArray[np.uint8]]:
    if processes < 2:
        yield from map(rasterise, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(rasterise, jobs, chunksize=32)


def _concepts(archives: Mapping[str, Path]) -> dict[str, Concept]:
    wanted = ("en/data.json", *(f"en/shortcodes/{name}.json" for name in SHORTCODES))
    files = {name: json.loads(content) for name, content in members(archives["emojibase-data"], wanted)}
    [(_, keywords)] = members(archives["emojilib"], ("emoji-en-US.json",))
    return concepts(files["en/data.json"], json.loads(keywords), [files[name] for name in wanted[1:]])


def _built(folder: Path, made_from: str) -> bool:
    if not ((folder / INDEX).exists() and (folder / PIXELS).exists()):
        return False
    return bool(json.loads((folder / INDEX).read_text())["made_from"] == made_from)


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
