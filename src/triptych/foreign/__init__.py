"""What other programs write into their pictures, in our words: AUTOMATIC1111's web UI and its kin, and ComfyUI.

Texts come in, a `Foreign` comes out, and with it, in sentences, everything that has no equivalent here. Standard
library only.
"""

from collections.abc import Mapping

from triptych.errors import NoRecipe
from triptych.foreign import a1111, comfy
from triptych.foreign.fit import fitted, followed
from triptych.foreign.told import Foreign, Hint, Lora, described

__all__ = ["Foreign", "Hint", "Lora", "described", "fitted", "followed", "read"]

READERS = {"prompt": comfy.read, "parameters": a1111.read}


def read(texts: Mapping[str, str], where: str) -> Foreign:
    """What a picture's texts, by their names in it, say. Raises NoRecipe with why, FileProblem if too large."""
    problems = []
    for name, reader in READERS.items():
        try:
            if name in texts:
                return reader(texts[name], where)
        except NoRecipe as problem:
            problems.append(str(problem))
    raise NoRecipe(" ".join(problems) or f"{where} does not say how it was made: no text of a known program is in it.")
