"""Films: one seed, one captioned loop of FRAMES frames. Half are animated pictures, half are stills that are moved.

Stills move as `motions` says and the caption says so; animated pictures do what they do, and the caption may say it.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triptych.train.data import clips, sprites
from triptych.train.data.captions import Ground, Subject, caption
from triptych.train.data.casting import Repertoire, choose_style, usual
from triptych.train.data.clips import FRAMES, Clips
from triptych.train.data.composition import TINTS, Pixels, fitted, paint, tinted
from triptych.train.data.concepts import Concept
from triptych.train.data.motions import MOTIONS, Motion, Pose
from triptych.train.data.scenes import choose_ground
from triptych.train.data.sprites import Sprites
from triptych.train.data.words import with_article

__all__ = ["Film", "Films", "build", "verbs"]

Rng = np.random.Generator
NATIVE = 0.5  # share of films that are animated pictures
SAID = 0.6  # share of animated pictures whose caption says what moves, where that is known
ANIMATED = 0.25  # share of the others whose caption says "animated"
MOTION_NAMES: Final = tuple(MOTIONS)
FILLED = 0.9  # of the frame, by an animated picture
STILL = 0.86  # of the frame, by a single still
TINTED, STYLED = 0.12, 0.2  # shares of the stills


@final
@dataclass(frozen=True, slots=True)
class Film:
    """A loop (FRAMES, size, size, 3), or none of it, its caption, the codes of what it shows, and how it moves.

    motion: one of MOTIONS, "" for an animated picture's own. still: what one would say of a still of it. poses:
    (FRAMES, POSE) where it is in every frame, its scale being 1 where it fills the frame as a single still does.
    """

    pixels: NDArray[np.uint8]
    caption: str
    codes: tuple[str, ...]
    motion: str
    still: str
    poses: NDArray[np.float32]


def build(folder: Path) -> None:
    """Fetches and rasterises sprites and clips into `folder` where they are not there yet: fetches 0.8 GB, keeps 3."""
    sprites.build(folder)
    clips.build(folder, Sprites.open(folder).concepts)


def verbs() -> Mapping[str, list[str]]:
    """What an animated picture does, by the label of its concept."""
    table: dict[str, list[str]] = tomllib.loads(Path(__file__).with_name("verbs.toml").read_text())
    return table


@final
class Films:
    """The film of every seed. Small to pickle: another process opens the files itself."""

    def __init__(self, folder: Path, size: int = 128, motion: str | None = None, held_out: bool = False) -> None:
        """folder: where `build` wrote; size: pixels a side; motion: the only one to show, "" for animated pictures.

        held_out: stills only move as training never moves them.
        """
        self._made_of = (folder, size, motion, held_out)
        self.size, self._motion, self._held_out = size, motion, held_out
        self.repertoire, self.clips, self.verbs = Repertoire.of(Sprites.open(folder)), Clips.open(folder), verbs()
        self.native = [code for code in self.clips.codes if code in self.repertoire.trained]
        self._rows = {code: row for row, code in enumerate(self.clips.codes)}
        weights = np.array([self._weight(code) for code in self.native])
        self._odds = np.cumsum(weights / weights.sum())

    def __reduce__(self) -> tuple[type["Films"], tuple[Path, int, str | None, bool]]:
        return Films, self._made_of

    def film(self, seed: int) -> Film:
        """The film of a seed: always the same."""
        return self._made(seed, drawn=True)

    def script(self, seed: int) -> Film:
        """The film of a seed with no frame drawn: what is said of it and where things are, a hundred times as fast."""
        return self._made(seed, drawn=False)

    def portrait(self, seed: int) -> Film:
        """One animated picture on white, of each that is trained on in turn."""
        code = self.native[seed % len(self.native)]
        name, poses = self.repertoire.art.concepts[code].label, [Pose()] * FRAMES
        frames = self._painted(Ground("plain", "white"), self._pictures(code), poses)
        return Film(frames, name, (code,), "", name, _told(poses, FILLED / STILL))

    def _pictures(self, code: str) -> list[Pixels]:
        """The frames of an animated picture as large as they are shown."""
        whole, longest = (0, 0, sprites.SIDE, sprites.SIDE), round(self.size * FILLED)
        return [fitted(frame, whole, longest) for frame in self.clips.pixels[self._rows[code]]]

    def _painted(self, ground: Ground, pictures: list[Pixels], poses: list[Pose]) -> NDArray[np.uint8]:
        frames = np.repeat(paint(ground, self.size)[None], len(pictures), axis=0)
        for frame, picture, pose in zip(frames, pictures, poses, strict=False):
            lay(frame, picture, ((0.5 + pose.x) * self.size, (0.5 + pose.y) * self.size), pose.alpha)
        return frames

    def _made(self, seed: int, drawn: bool) -> Film:
        rng = np.random.default_rng(seed)
        native = rng.random() < NATIVE if self._motion is None else not self._motion
        if native:
            code = self.native[int(np.searchsorted(self._odds, rng.random(), side="right"))]
            return self._animated(rng, self.repertoire.art.concepts[code], drawn)
        while True:
            name = self._motion or MOTION_NAMES[int(rng.integers(len(MOTION_NAMES)))]
            concept = self.repertoire.concept(rng, "single")
            if self.repertoire.split.moves(concept.code, name) != self._held_out:
                return self._moved(rng, concept, name, drawn)

    def _weight(self, code: str) -> float:
        """People and clock faces look much alike, and would else be half of all."""
        concept = self.repertoire.art.concepts[code]
        return 1.0 if concept.label in self.verbs else {0: 0.6, 1: 0.15}.get(concept.group, 0.3)

    def _animated(self, rng: Rng, concept: Concept, drawn: bool) -> Film:
        name, doing = self.repertoire.lexicon.name(rng, concept, 1), self.verbs.get(concept.label, ())
        if doing and rng.random() < SAID:
            verb = doing[int(rng.integers(len(doing)))]
            subject = Subject(f"{with_article(name)} {verb}", f"{name} {verb}", single=False)
        elif rng.random() < ANIMATED:
            subject = Subject(with_article(f"animated {name}"), f"animated {name}")
        else:
            subject = Subject(with_article(name), name)
        pictures = self._pictures(concept.code) if drawn else []
        said = Said(subject, name, None, concept.code, "")
        return self._film(rng, said, pictures, [Pose()] * FRAMES, self.size * FILLED)

    def _moved(self, rng: Rng, concept: Concept, name: str, drawn: bool) -> Film:
        motion = MOTIONS[name]
        styles = tuple(self.repertoire.trained[concept.code])
        style, said = choose_style(rng, styles) if rng.random() < STYLED else (usual(styles), False)
        pixels = self.repertoire.art.pixels[self.repertoire.trained[concept.code][style]]
        called, colour = self.repertoire.lexicon.name(rng, concept, 1), ""
        if rng.random() < TINTED:
            free = [tint for tint in TINTS if self.repertoire.split.colours(concept.code, tint)]
            colour = free[int(rng.integers(len(free)))] if free else ""
            pixels = tinted(pixels, TINTS[colour]) if colour else pixels
        cycles = motion.cycles[int(rng.integers(len(motion.cycles)))]
        poses = [motion.pose(n * cycles / FRAMES % 1) for n in range(FRAMES)]
        longest = self.size * motion.length * rng.uniform(0.9, 1.1)
        pictures = [posed(pixels, longest, pose) for pose in poses if drawn]
        called = f"{colour} {called}".strip()
        subject = _moving(rng, motion, called, cycles > motion.cycles[0])
        told = Said(subject, called, style if said else None, concept.code, name)
        return self._film(rng, told, pictures, poses, longest)

    def _film(self, rng: Rng, said: "Said", pictures: list[Pixels], poses: list[Pose], longest: float) -> Film:
        ground, spoken = choose_ground(rng)
        frames = self._painted(ground, pictures, poses)
        told = caption(rng, said.subject, said.style, ground if spoken else None)
        still = caption(rng, Subject(with_article(said.name), said.name), said.style, ground if spoken else None)
        return Film(frames, told, (said.code,), said.motion, still, _told(poses, longest / self.size / STILL))


@final
@dataclass(frozen=True, slots=True)
class Said:
    """What there is to say of a film: its subject with what it does, the name alone, its style where that is said."""

    subject: Subject
    name: str
    style: str | None
    code: str
    motion: str


def posed(sprite: Pixels, longest: float, pose: Pose) -> Pixels:
    """The sprite (H, W, 4) at the scale and angle of the pose: (h, w, 4) premultiplied."""
    picture = fitted(sprite, (0, 0, *sprite.shape[1::-1]), max(2, round(longest * pose.scale)))
    if not pose.turn % 1:
        return picture
    turned = Image.fromarray(picture, "RGBa").rotate(-360 * pose.turn, Image.Resampling.BICUBIC, expand=True)
    return np.asarray(turned)


def lay(canvas: Pixels, drawn: Pixels, centre: tuple[float, float], alpha: float = 1.0) -> None:
    """Lays a premultiplied picture over the canvas; what lies outside is cut."""
    height, width = drawn.shape[:2]
    left, top = round(centre[0] - width / 2), round(centre[1] - height / 2)
    x, y = max(0, -left), max(0, -top)
    bottom, right = max(y, canvas.shape[0] - top), max(x, canvas.shape[1] - left)
    part = drawn[y:bottom, x:right].astype(np.float32) * alpha
    if part.size:
        place = canvas[top + y : top + y + part.shape[0], left + x : left + x + part.shape[1]]
        place[:] = (part[..., :3] + place * (1 - part[..., 3:] / 255) + 0.5).clip(0, 255).astype(np.uint8)


def _told(poses: list[Pose], scale: float) -> NDArray[np.float32]:
    """(FRAMES, POSE) as `triptych.engine.poses` has them."""
    angles = [2 * np.pi * pose.turn for pose in poses]
    rows = [
        (pose.x, pose.y, np.log2(pose.scale * scale), np.cos(angle), np.sin(angle), pose.alpha)
        for pose, angle in zip(poses, angles, strict=True)
    ]
    return np.array(rows, np.float32)


def _moving(rng: Rng, motion: Motion, name: str, fast: bool) -> Subject:
    said = motion.said[int(rng.integers(len(motion.said)))]
    if motion.bare and rng.random() < 0.3:
        bare = motion.bare[int(rng.integers(len(motion.bare)))].format(name)
        bare = f"fast {bare}" if fast else bare
        return Subject(with_article(bare), bare, single=False)
    said = f"{said} fast" if fast else said
    return Subject(said.format(with_article(name)), said.format(name), single=False)
