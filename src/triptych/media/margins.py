"""How much is drawn around a picture."""

from dataclasses import dataclass
from typing import final

__all__ = ["Margins"]


@final
@dataclass(frozen=True, slots=True)
class Margins:
    """Pixels on each side of a picture."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def __str__(self) -> str:
        told = [f"{name}={getattr(self, name)}" for name in self.__slots__ if getattr(self, name)]
        return ",".join(told) or "nothing"

    def around(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) of the canvas around a picture of this size."""
        return self.left + size[0] + self.right, self.top + size[1] + self.bottom
