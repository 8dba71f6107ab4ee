"""Motions that a still picture can make, each a loop: where it is, how large, how turned and how clear at every moment.

A motion maps the share of the loop that is over, [0, 1), to a `Pose`. Distances are shares of the frame, x to the right
and y down; what leaves the frame on one side comes in on the other, so that loops close.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

__all__ = ["MOTIONS", "Motion", "Pose"]


@final
@dataclass(frozen=True, slots=True)
class Pose:
    """x, y: the centre, from the middle of the frame; turn: clockwise, in whole turns; alpha: 1 is solid."""

    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    turn: float = 0.0
    alpha: float = 1.0


@final
@dataclass(frozen=True, slots=True)
class Motion:
    """A path with its words: `said` of the thing's name with its article, `bare` of the name alone.

    length: the longer side of the thing at scale 1, as a share of the frame. cycles: how often it may repeat in a loop,
    first as usual, then fast.
    """

    pose: Callable[[float], Pose]
    said: tuple[str, ...]
    bare: tuple[str, ...]
    length: float
    cycles: tuple[int, ...]


def _across(dx: float, dy: float, turns: float = 0.0) -> Callable[[float], Pose]:
    """Through the frame and on from its other side; it starts in the middle."""

    def pose(share: float) -> Pose:
        way = (share + 0.5) % 1 - 0.5
        return Pose(1.7 * dx * way, 1.7 * dy * way, turn=turns * way)

    return pose


def _bounce(share: float) -> Pose:
    """Free fall and return, flattened a little where it meets the ground."""
    height = 4 * share * (1 - share)
    return Pose(y=0.24 - 0.48 * height)


def _jump(share: float) -> Pose:
    """A rest on the ground, then a leap."""
    leap = max(0.0, (share - 0.4) / 0.6)
    return Pose(y=0.18 - 0.36 * 4 * leap * (1 - leap))


def _wave(share: float) -> float:
    return math.sin(2 * math.pi * share)


def _circle(share: float) -> Pose:
    angle = 2 * math.pi * share
    return Pose(0.25 * math.sin(angle), -0.25 * math.cos(angle))


MOTIONS: Final[dict[str, Motion]] = {
    "bounce": Motion(
        _bounce, ("{0} bouncing", "{0} bouncing up and down", "{0} that bounces"), ("bouncing {0}",), 0.46, (2, 3)
    ),
    "jump": Motion(
        _jump, ("{0} jumping", "{0} that jumps", "{0} hopping"), ("jumping {0}", "hopping {0}"), 0.5, (2, 3)
    ),
    "spin": Motion(
        lambda share: Pose(turn=share),
        ("{0} spinning", "{0} spinning around", "{0} turning around", "{0} rotating", "{0} spinning clockwise"),
        ("spinning {0}", "rotating {0}"),
        0.66,
        (1, 2),
    ),
    "spin back": Motion(
        lambda share: Pose(turn=-share),
        ("{0} spinning counterclockwise", "{0} rotating counterclockwise"),
        ("counterclockwise spinning {0}",),
        0.66,
        (1, 2),
    ),
    "roll right": Motion(
        _across(1, 0, 2),
        ("{0} rolling", "{0} rolling to the right", "{0} rolling right"),
        ("rolling {0}",),
        0.5,
        (1,),
    ),
    "roll left": Motion(_across(-1, 0, -2), ("{0} rolling to the left", "{0} rolling left"), (), 0.5, (1,)),
    "right": Motion(
        _across(1, 0),
        ("{0} sliding to the right", "{0} moving right", "{0} moving to the right", "{0} passing by"),
        ("passing {0}",),
        0.5,
        (1, 2),
    ),
    "left": Motion(
        _across(-1, 0), ("{0} sliding to the left", "{0} moving left", "{0} moving to the left"), (), 0.5, (1, 2)
    ),
    "up": Motion(
        _across(0, -1), ("{0} flying up", "{0} moving up", "{0} rising", "{0} sliding up"), ("rising {0}",), 0.5, (1, 2)
    ),
    "down": Motion(
        _across(0, 1),
        ("{0} falling", "{0} falling down", "{0} moving down", "{0} sliding down"),
        ("falling {0}",),
        0.5,
        (1, 2),
    ),
    "zoom in": Motion(
        lambda share: Pose(scale=0.3 * (0.9 / 0.3) ** share),
        ("{0} coming closer", "zooming in on {0}", "{0} getting bigger"),
        ("growing {0}",),
        1.0,
        (1,),
    ),
    "zoom out": Motion(
        lambda share: Pose(scale=0.9 * (0.3 / 0.9) ** share),
        ("{0} going away", "zooming out from {0}", "{0} getting smaller"),
        ("shrinking {0}",),
        1.0,
        (1,),
    ),
    "pulse": Motion(
        lambda share: Pose(scale=1 + 0.22 * _wave(share)),
        ("{0} pulsing", "{0} pulsating", "{0} throbbing"),
        ("pulsing {0}", "beating {0}"),
        0.66,
        (2, 3),
    ),
    "shake": Motion(
        lambda share: Pose(x=0.07 * _wave(share)),
        ("{0} shaking", "{0} trembling", "{0} vibrating"),
        ("shaking {0}", "trembling {0}"),
        0.66,
        (6, 9),
    ),
    "swing": Motion(
        lambda share: Pose(turn=0.08 * _wave(share)),
        ("{0} swinging", "{0} rocking", "{0} swaying"),
        ("swinging {0}", "wobbling {0}"),
        0.66,
        (2, 3),
    ),
    "orbit": Motion(
        _circle,
        ("{0} moving in a circle", "{0} circling", "{0} orbiting"),
        ("circling {0}", "orbiting {0}"),
        0.42,
        (1, 2),
    ),
    "fade in": Motion(
        lambda share: Pose(alpha=share), ("{0} fading in", "{0} appearing"), ("appearing {0}",), 0.8, (1,)
    ),
    "fade out": Motion(
        lambda share: Pose(alpha=1 - share), ("{0} fading out", "{0} disappearing"), ("disappearing {0}",), 0.8, (1,)
    ),
}
