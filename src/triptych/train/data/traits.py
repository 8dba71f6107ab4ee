"""What may be done to a concept and leave its caption true: mirror, tint, count, turn; and how often to draw it."""

import re
from typing import Final

from triptych.train.data.concepts import Concept
from triptych.train.data.words import head_noun, is_plural

__all__ = ["can", "weight"]

FACES, PEOPLE, SYMBOLS = 0, 1, 8
GROUP_WEIGHTS: Final = {PEOPLE: 0.3, SYMBOLS: 0.15}
CLOCK_FACE: Final = re.compile(r"o'clock|-thirty")  # 24 of them, hard to tell apart
COLOURED: Final = re.compile(
    r"\b(red|orange|yellow|green|blue|purple|pink|brown|black|white|gray|grey|golden?|silver|rainbow)\b"
)
LETTERED: Final = re.compile(  # shows writing, or means something else when mirrored
    r"\b(left|right|clock|watch|arrows?|button|keycap|letters?|numbers?|text|abc|abcd|sign|book|newspaper|page|bank|banknote"
    r"|money|dollar|euro|pound|yen|credit|card|calendar|chart|ticket|label|receipt|hospital|hotel|store|station|taxi"
    r"|police|bus|ambulance|office|ATM|school|memo|scroll|document|dice|die|chess|mahjong|keyboard|calculator|abacus"
    r"|moon|globe|map|note|notes|score|musical|guitar|violin|hundred|e-mail|email|envelope|medal|zzz|OK|SOS|speech|flower"
    r"|compass|thermometer|scale|barber|slot|pill|cinema|bubble|symbol|test|petri|microscope|name|badge|stop|bottle"
    r"|lotion|passport|customs|baggage|luggage|castle|tower|fax|pager|tv|video|disk|tear-off|spiral|bookmark|ledger|love"
    r"|thumbs|hand|fist|finger|horns|pointing|question|exclamation|tone|waxing|waning|quarter|gibbous|crescent|Japanese)\b"
)
TURNED: Final = re.compile(  # looks much the same upside down, or says already how it is turned
    r"\b(upside|ball|basketball|baseball|softball|volleyball|pool|globe|disk|dvd|wheel|donut|doughnut|cookie|moon|star|snowflake"
    r"|coin|record|dango|sun|ring|yarn|atom|circle|dice|die|compass|clock|watch|pizza|bagel|arrows?|card|knot|dna|key"
    r"|flower|blossom|rosette|cyclone|web|bone|hourglass|worm|egg|link|chains?|stopwatch|target|pill|test|safety|pin)\b"
)


def can(concept: Concept, kind: str) -> bool:
    """Whether the concept may take part in scenes of this kind, or be "mirrored"."""
    label, group = concept.label, concept.group
    match kind:
        case "mirrored":
            return group != SYMBOLS and not LETTERED.search(label)
        case "tint":
            return group not in (PEOPLE, SYMBOLS) and not COLOURED.search(label) and not CLOCK_FACE.search(label)
        case "three":
            return group not in (PEOPLE, SYMBOLS) and not is_plural(label) and not head_noun(label).endswith("ing")
        case "upside down":
            return group not in (PEOPLE, SYMBOLS) and not TURNED.search(label) and not CLOCK_FACE.search(label)
        case _:
            return True


def weight(concept: Concept) -> float:
    """How often it is drawn, against 1 for an animal."""
    return GROUP_WEIGHTS.get(concept.group, 1.0) * (0.15 if CLOCK_FACE.search(concept.label) else 1.0)
