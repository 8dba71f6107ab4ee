"""The drawings inside the packages, matched to concepts: SVG text or WebP bytes, one a concept and style.

The licence rule: Microsoft's own list of what it released is the chars.json of the flat set. The 3D set is kept only
where a code is in that list, and without the five pictures there that show trademarks (Clippy, Xbox, Windows).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from triptych.train.data.concepts import Concept, code_of, squash
from triptych.train.data.fetch import members

__all__ = ["BLOCKED", "FLUENT", "STYLES", "Drawing", "drawings"]

STYLES = ("3d", "flat", "noto", "noto-v1", "twemoji", "emojione", "fxemoji", "streamline")
FLUENT = ("3d", "flat")  # two renderings of one design
BLOCKED = frozenset(["1f4ce", "1f3ae", "1f468-200d-1f4bb", "1f469-200d-1f4bb", "1f9d1-200d-1f4bb"])
RENAMED = frozenset(["pistol"])  # old sets draw a gun where the concept is now a water pistol


@final
@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture before it is rasterised; `source` is SVG (str) or WebP (bytes)."""

    code: str
    style: str
    source: str | bytes


def drawings(archives: Mapping[str, Path], known: Mapping[str, Concept]) -> list[Drawing]:
    """All drawings of the concepts, sorted by code and style. archives: the package file of each style."""
    names = _names(archives, known)
    found = [drawing for style in archives if style != "3d" for drawing in _vectors(archives[style], style, names)]
    if "3d" in archives:
        found += _rasters(archives["3d"], released(archives["flat"], known))
    order = {style: n for n, style in enumerate(STYLES)}
    return sorted(found, key=lambda drawing: (drawing.code, order[drawing.style]))


def released(flat: Path, known: Mapping[str, Concept]) -> set[str]:
    """The codes that may be taken from the 3D set."""
    listed = {code_of(char) for char in _json(flat, "chars.json")}
    return (listed & known.keys()) - BLOCKED


def _json(archive: Path, name: str) -> dict[str, Any]:
    [(_, content)] = [found for found in members(archive, (name,)) if found[0] == name]
    parsed: dict[str, Any] = json.loads(content)
    return parsed


def _names(archives: Mapping[str, Path], known: Mapping[str, Concept]) -> dict[str, str]:
    """Squashed icon name -> code: labels first, then what the sets that list their code points call them."""
    names = {squash(concept.label): code for code, concept in known.items()}
    for style in ("noto", "twemoji"):
        if style in archives:
            listed = {name: code_of(char) for char, name in _json(archives[style], "chars.json").items()}
            for name, icon in _json(archives[style], "icons.json").get("aliases", {}).items():
                listed.setdefault(name, listed.get(icon["parent"], ""))
            for name, code in listed.items():
                if code in known and name not in RENAMED:
                    names.setdefault(squash(name), code)
    return names


def _vectors(archive: Path, style: str, names: Mapping[str, str]) -> Iterator[Drawing]:
    icons, chars = _json(archive, "icons.json"), _json(archive, "chars.json")
    codes = set(names.values())
    chosen = {code_of(char): name for char, name in sorted(chars.items()) if code_of(char) in codes}
    for name in sorted([*icons["icons"], *icons.get("aliases", {})]) if not chars else ():
        code = names.get(squash(name)) or names.get(squash(re.sub(r"-1$", "", name)))  # "bird-1" of several birds
        if code and name not in RENAMED:
            chosen.setdefault(code, name)
    for code, name in chosen.items():
        yield Drawing(code, style, _svg(icons, name))


def _svg(icons: Mapping[str, Any], name: str) -> str:
    mirrored = False
    while name not in icons["icons"]:
        alias = icons["aliases"][name]
        mirrored ^= bool(alias.get("hFlip"))
        name = alias["parent"]
    icon = icons["icons"][name]
    width, height = (icon.get(key, icons.get(key, 16)) for key in ("width", "height"))
    body = f'<g transform="translate({width} 0) scale(-1 1)">{icon["body"]}</g>' if mirrored else icon["body"]
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {space} viewBox="0 0 {width} {height}" width="{width}" height="{height}">{body}</svg>'


def _rasters(archive: Path, allowed: set[str]) -> Iterator[Drawing]:
    seen: set[str] = set()
    for name, content in members(archive, (".webp",)):
        stem = Path(name).stem
        code = code_of(stem) if re.fullmatch(r"[0-9a-f]+(-[0-9a-f]+)*", stem) else ""
        if code in allowed and code not in seen:
            seen.add(code)
            yield Drawing(code, "3d", content)
