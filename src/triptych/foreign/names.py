"""What the web UIs and ComfyUI call samplers and spacings, and which of ours mean the same.

Read in AUTOMATIC1111's web UI 1.10 (modules/sd_samplers_*.py, sd_schedulers.py) and ComfyUI 0.3 (comfy/samplers.py).
What the rules of a profile make the same is the same here; elsewhere a word says in what it differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final, final

__all__ = ["DRAWING", "ETA", "MOVING", "SAMPLERS", "SPACINGS", "Named", "habit", "sampler", "spacing", "split"]


@final
@dataclass(frozen=True, slots=True)
class Named:
    """Our name for something of another program, and in what the two differ: nothing if empty."""

    ours: str
    differs: str = ""


ALL = "it goes to the last time but one, which is left out here"
PLUS = "its CFG++ counts guidance in another unit"

SAMPLERS: Final[Mapping[str, Named]] = MappingProxyType(
    {
        "euler": Named("euler"),
        "euler a": Named("euler_ancestral"),
        "euler_ancestral": Named("euler_ancestral"),
        "euler_cfg_pp": Named("euler", PLUS),
        "euler_ancestral_cfg_pp": Named("euler_ancestral", PLUS),
        "heun": Named("heun"),
        "heunpp2": Named("heun", "it takes three slopes a step"),
        "lms": Named("lms"),
        "lmsd": Named("lms"),
        "dpm2": Named("dpm2"),
        "dpm_2": Named("dpm2"),
        "kdpm2": Named("dpm2", ALL),
        "dpm2 a": Named("dpm2_ancestral"),
        "dpm_2_ancestral": Named("dpm2_ancestral"),
        "kdpm2 a": Named("dpm2_ancestral", ALL),
        "dpm++ 2s a": Named("dpmpp_2s_ancestral"),
        "dpmpp_2s_ancestral": Named("dpmpp_2s_ancestral"),
        "dpm++ 2m": Named("dpmpp_2m"),
        "dpmpp_2m": Named("dpmpp_2m"),
        "dpmpp_2m_cfg_pp": Named("dpmpp_2m", PLUS),
        "dpm++ sde": Named("dpmpp_2s_ancestral", "it is an SDE solver of two calls a step"),
        "dpmpp_sde": Named("dpmpp_2s_ancestral", "it is an SDE solver of two calls a step"),
        "dpm++ 2m sde": Named("dpmpp_2m_sde"),
        "dpmpp_2m_sde": Named("dpmpp_2m_sde"),
        "dpm++ 2m sde heun": Named("dpmpp_2m_sde", "its correction is Heun's, here the midpoint's"),
        "dpmpp_2m_sde_heun": Named("dpmpp_2m_sde", "its correction is Heun's, here the midpoint's"),
        "dpm++ 3m sde": Named("dpmpp_3m_sde"),
        "dpmpp_3m_sde": Named("dpmpp_3m_sde"),
        "dpm fast": Named("dpmpp_2s", "it mixes orders one to three within the steps"),
        "dpm_fast": Named("dpmpp_2s", "it mixes orders one to three within the steps"),
        "dpm adaptive": Named("dpmpp_2s", "it chooses its steps as it goes"),
        "dpm_adaptive": Named("dpmpp_2s", "it chooses its steps as it goes"),
        "restart": Named("heun", "it goes back into the noise several times"),
        "ddim": Named("ddim"),
        "ddim cfg++": Named("ddim", PLUS),
        "ddpm": Named("ddpm"),
        "plms": Named("pndm"),
        "pndm": Named("pndm", "it takes its first steps otherwise"),
        "ipndm": Named("ipndm"),
        "ipndm_v": Named("ipndm", "its weights follow the spacing"),
        "deis": Named("deis", "its order is three, here two"),
        "unipc": Named("unipc", "its order is three and its variant bh1, here two and bh2"),
        "uni_pc": Named("unipc", "its order is three and its variant bh1, here two and bh2"),
        "uni_pc_bh2": Named("unipc", "its order is three, here two"),
        "lcm": Named("lcm"),
        "res_multistep": Named("dpmpp_2m", "it is another integrator of second order"),
        "gradient_estimation": Named("euler", "it corrects the slope by the one before"),
        "er_sde": Named("dpmpp_3m_sde", "it is another SDE solver"),
        "sa_solver": Named("dpmpp_3m_sde", "it is another SDE solver"),
        "seeds_2": Named("dpmpp_2s_ancestral", "it is another SDE solver"),
        "seeds_3": Named("dpmpp_2s_ancestral", "it is another SDE solver"),
    }
)
DRAWING: Final = ("ddpm", "dpm2_ancestral", "dpmpp_2s_ancestral", "euler_ancestral", "lcm")  # noise at every step
MOVING: Final = ("dpmpp_2m_sde", "dpmpp_3m_sde")  # and those whose noise is one motion's
ETA: Final = (  # of ours, those that take an eta
    *("ddim", "ddpm", "dpm2", "dpm2_ancestral", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2s_ancestral", "dpmpp_3m_sde"),
    "euler_ancestral",
)

SPACINGS: Final[Mapping[str, Named]] = MappingProxyType(
    {
        "automatic": Named("linspace"),
        "uniform": Named("linspace"),
        "normal": Named("linspace"),
        "karras": Named("karras"),
        "exponential": Named("exponential"),
        "polyexponential": Named("exponential"),
        "sgm uniform": Named("sgm_uniform"),
        "simple": Named("simple"),
        "ddim": Named("ddim_uniform"),
        "ddim uniform": Named("ddim_uniform"),
        "beta": Named("beta"),
        "kl optimal": Named("kl_optimal"),
        "align your steps": Named("align_your_steps"),
        "align your steps xl": Named("align_your_steps_xl"),
        "linear quadratic": Named("linear_quadratic"),
        "turbo": Named("trailing", "it counts on ten timesteps"),
        "laplace": Named("karras", "it is another curve"),
        "vp": Named("linspace", "it is another curve"),
    }
)
# What a sampler of the web UI takes where the spacing is left to it.
HABITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("dpm2", "dpm2 a", "dpm++ 2s a", "dpm++ 2m", "dpm++ sde", "restart"), "karras"),
        **dict.fromkeys(("dpm++ 2m sde", "dpm++ 2m sde heun", "dpm++ 3m sde"), "exponential"),
        "ddim": "ddim",
        "plms": "ddim",
    }
)
SUFFIXES = (" karras", " exponential", " sgmuniform")  # that older versions put after a sampler


def split(name: str) -> tuple[str, str]:
    """(sampler, spacing) of a name that may say both, as "DPM++ 2M Karras"; the latter is empty where it does not."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)].strip(), suffix.strip().replace("sgmuniform", "sgm uniform")
    return name, ""


def habit(name: str) -> str:
    """The spacing that the web UI takes for a sampler where it is left to it."""
    return HABITS.get(name.strip().lower(), "automatic")


def sampler(name: str) -> tuple[str, str]:
    """Our sampler of the same meaning, else the nearest; and a sentence on how they differ, empty if they do not."""
    found, known = _find(name.strip().lower().removesuffix("_gpu"), SAMPLERS, "euler")
    return found.ours, _sentence("sampler", name, found, known)


def spacing(name: str) -> tuple[str, str]:
    """Our spacing of the same meaning, else the nearest; and a sentence on how they differ, empty if they do not."""
    found, known = _find(name.strip().lower().replace("_", " "), SPACINGS, "normal")
    return found.ours, _sentence("spacing", name, found, known)


def _find(name: str, table: Mapping[str, Named], otherwise: str) -> tuple[Named, bool]:
    if name in table:
        return table[name], True
    near = get_close_matches(name[:80], table, n=1)
    return table[near[0] if near else otherwise], False


def _sentence(kind: str, name: str, found: Named, known: bool) -> str:
    if not known:
        return f"{kind} {name[:80]!r}: it is not known here; the nearest by name is taken, {found.ours}."
    return f"{kind} {name!r}: {found.differs}; the nearest is taken, {found.ours}." if found.differs else ""
