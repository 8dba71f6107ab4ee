"""What exists: every model, local or a vendor's, alive or not, with what it costs and what it is good at."""

from triptych.catalogue.entries import ABILITIES, SUBJECTS, Entry, Lifecycle, PriceRow, shipped
from triptych.catalogue.known import entries, use
from triptych.catalogue.lifecycle import alive, refuse, stale, successors, warning
from triptych.catalogue.names import found

__all__ = [
    "ABILITIES",
    "SUBJECTS",
    "Entry",
    "Lifecycle",
    "PriceRow",
    "alive",
    "entries",
    "found",
    "refuse",
    "shipped",
    "stale",
    "successors",
    "use",
    "warning",
]
