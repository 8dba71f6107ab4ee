"""Guidance: a denoiser made of denoisers. Samplers see no difference, and each of these can wrap another."""

from triptych.engine.guidance.evaluate import Evaluate, Together, one_by_one, rows, tensors
from triptych.engine.guidance.extrapolate import (
    GUIDANCES,
    Autoguidance,
    ClassifierFree,
    ClassifierFreePlusPlus,
    Guided,
    NamedGuidance,
    PerpendicularNegative,
    Projected,
    unguided,
)
from triptych.engine.guidance.restrain import Interval, Keep, Rescaled

__all__ = [
    "GUIDANCES",
    "Autoguidance",
    "ClassifierFree",
    "ClassifierFreePlusPlus",
    "Evaluate",
    "Guided",
    "Interval",
    "Keep",
    "NamedGuidance",
    "PerpendicularNegative",
    "Projected",
    "Rescaled",
    "Together",
    "one_by_one",
    "rows",
    "tensors",
    "unguided",
]
