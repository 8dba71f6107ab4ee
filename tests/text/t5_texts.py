"""Texts of every kind for T5's tokenizers: words, brackets, scripts, marks, control characters; alike in every run."""

import gzip
import random
from importlib.resources import files

SCRIPTS = [
    (0x20, 0x7E), (0x20, 0x7E), (0x20, 0x7E), (0, 0x1F), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF),
    (0x590, 0x6FF), (0x900, 0x97F), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2070, 0x218F), (0x2190, 0x2BFF),
    (0x3000, 0x30FF), (0x4E00, 0x4FFF), (0xAC00, 0xACFF), (0xFF00, 0xFFEF), (0x1F300, 0x1F6FF),
]  # fmt: skip
BETWEEN = [" ", "  ", "\n", "(", "),", ":1.3", "</s>", "<extra_id_7>", "\u2581"]


def texts(words, count, seed=0):
    """So many texts, half of them of these words."""
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        kind, length = draw.random(), draw.randint(1, 30)
        if kind < 0.5:
            found.append(
                "".join(draw.choice(words) if draw.random() < 0.8 else draw.choice(BETWEEN) for _ in range(length))
            )
            continue
        script = draw.choice(SCRIPTS)
        scripts = [script if kind < 0.8 else draw.choice(SCRIPTS) for _ in range(length)]
        found.append("".join(chr(draw.randint(*one)) for one in scripts))
    return found


def own():
    """The bytes of T5's spiece.model."""
    return gzip.decompress(files("triptych.text").joinpath("t5.model.gz").read_bytes())
