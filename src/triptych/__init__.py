"""Images, video and audio by diffusion and flow matching: one call for every model, one recipe in every file.

    import triptych
    made = triptych.load("mini-image").make("a red heart", seed=7)
    made.media[0].save("heart.png")

Names are imported when they are first used: `import triptych` alone imports no tensor library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triptych.calibration import calibrate
    from triptych.client import Handle, Made, Media, again, load, models, recipe
    from triptych.errors import TriptychError
    from triptych.grids import Grid, grid
    from triptych.types import Artifact, Card, Progress, Request

__all__ = [
    "Artifact",
    "Card",
    "Grid",
    "Handle",
    "Made",
    "Media",
    "Progress",
    "Request",
    "TriptychError",
    "__version__",
    "again",
    "calibrate",
    "grid",
    "load",
    "models",
    "recipe",
]

PLACES = {
    **dict.fromkeys(("Handle", "Made", "Media", "again", "load", "models", "recipe"), "triptych.client"),
    **dict.fromkeys(("Artifact", "Card", "Progress", "Request"), "triptych.types"),
    **dict.fromkeys(("Grid", "grid"), "triptych.grids"),
    "calibrate": "triptych.calibration",
    "TriptychError": "triptych.errors",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("triptych")
    if name not in PLACES:
        raise AttributeError(f"module 'triptych' has no attribute {name!r}")
    return getattr(import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
