"""Where results go: everything that can be wrong with a place is found out before anything is computed."""

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import final

from triptych import media
from triptych.errors import FileProblem
from triptych.media import files
from triptych.types import Medium

__all__ = ["Plan", "medium", "plan", "slug", "trace_kind"]

LONGEST = 40  # letters of the prompt in a name


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """A folder, and a name where one was given: that file is replaced, while names of our own are never taken twice."""

    folder: Path
    name: str | None = None
    suffix: str = ".png"

    @property
    def replace(self) -> bool:
        return self.name is not None

    def paths(self, prompt: str, seeds: tuple[int | None, ...]) -> list[Path]:
        """One a sample: NAME.png, or NAME-1.png, NAME-2.png, ... of several; PROMPT-SEED.png where none was given, or
        PROMPT.png of what has no seed."""
        if self.name is None:
            ends = ("" if seed is None else f"-{seed}" for seed in seeds)
            return [self.folder / f"{slug(prompt)}{end}{self.suffix}" for end in ends]
        if len(seeds) == 1:
            return [self.folder / self.name]
        stem = Path(self.name).stem
        return [self.folder / f"{stem}-{number}{Path(self.name).suffix}" for number in range(1, len(seeds) + 1)]


def plan(out: str | None, medium: Medium, suffix: str | None = None) -> Plan:
    """The place that `-o` names; without it, the folder at hand. suffix: of names of our own. Raises FileProblem."""
    suffix = suffix or next(iter(media.EXTENSIONS[medium]))
    path = Path(out).expanduser() if out is not None else Path()
    _check_name(path)
    if out is None or path.is_dir() or out.endswith(("/", os.sep)):
        files.check_folder(path)
        return Plan(path, suffix=suffix)
    media.mime(path, medium)
    files.check_folder(path.parent)
    return Plan(path.parent, path.name)


def medium(out: str | None) -> Medium | None:
    """What the extension of `-o` stands for; where it may be several things, the first: .webp is a picture."""
    suffix = Path(out).suffix.lower() if out is not None else ""
    return next((kind for kind, known in media.EXTENSIONS.items() if suffix in known), None)


def trace_kind(path: Path | None) -> str | None:
    """What kind of trace a name asks for. Raises FileProblem."""
    if path is None:
        return None
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "mp4", "gif", "webp"):
        raise FileProblem(f"{path}: extension {path.suffix!r} given; a trace is saved as .png, .mp4, .gif or .webp.")
    _check_name(path)
    files.check_folder(path.parent)
    return kind


def slug(prompt: str) -> str:
    """Letters and digits of a prompt, with hyphens between the words."""
    plain = unicodedata.normalize("NFKC", prompt).lower().encode("utf-8", "ignore").decode()
    words = re.sub(r"[\W_]+", "-", plain).strip("-")
    return words[:LONGEST].rstrip("-") or "untitled"


def _check_name(path: Path) -> None:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as problem:
        raise FileProblem(f"cannot write {path}: {problem}.") from problem
