"""Networks that are named inside a prompt, as AUTOMATIC1111's web UI 1.10 reads them (modules/extra_networks.py).

`<lora:NAME>` weighs 1. `<lora:NAME:A>` weighs A, `<lora:NAME:A:B>` A in the text towers and B in the network, which
`te=A` and `unet=B` say by name; the network weighs what the towers do where it is not told.
"""

import re
from dataclasses import dataclass
from math import isfinite
from typing import Final, final

__all__ = ["LORAS", "Tag", "apart"]

LORAS: Final = ("lora", "lyco")  # the kinds that are files of small changes


@final
@dataclass(frozen=True, slots=True)
class Tag:
    """A network by its kind, in lower case, and what stands between the colons after it."""

    kind: str
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return f"<{':'.join((self.kind, *self.parts))}>"

    @property
    def name(self) -> str:
        """What it is called."""
        return self.parts[0]

    def weights(self) -> tuple[float, float]:
        """(of the network, of the text towers). Raises ValueError for what is no finite number."""
        named = dict(part.split("=", 1) for part in self.parts[1:] if "=" in part)
        plain = [part for part in self.parts[1:] if "=" not in part]
        text = _number(named.get("te", plain[0] if plain else "1"))
        network = named.get("unet", plain[1] if len(plain) > 1 else None)
        return text if network is None else _number(network), text


def apart(prompt: str) -> tuple[str, tuple[Tag, ...]]:
    """(the prompt without tags, the tags)."""
    found = [Tag(kind.lower(), tuple(map(str.strip, rest.split(":")))) for kind, rest in _TAG.findall(prompt)]
    return _TAG.sub("", prompt), tuple(found)


_TAG: Final = re.compile(r"<(\w{1,20}):([^<>]{1,300})>")


def _number(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(text)
    return number
