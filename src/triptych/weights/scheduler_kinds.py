"""The schedulers of diffusers 0.42 that mean something here: what their keys stand for, and how they count their steps.

Read in its src/diffusers/schedulers, and held against it by tests/weights/test_schedulers.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, final

__all__ = ["KINDS", "LEVELS", "ONE_MORE", "ROUNDED_DOWN", "TO_FIRST", "UNKNOWN", "Keys", "Kind"]

Keys = Mapping[str, Any]
Alike = Mapping[str, tuple[Any, ...]]

TABLE: Keys = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
}
LATENT: Keys = {**TABLE, "beta_start": 0.00085, "beta_end": 0.012}
COUNTED: Keys = {"timestep_spacing": "linspace", "steps_offset": 0}
LEVELS: Mapping[str, str] = {  # noise levels in place of timesteps, in the order in which diffusers asks for them
    "use_karras_sigmas": "karras",
    "use_lu_lambdas": "exponential",  # by another name
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
}
ROUNDED_DOWN = ("use_exponential_sigmas", "use_beta_sigmas")  # in classes that count one more step than they take
LEVELLED: Keys = dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), False)
MANY_STEPS: Keys = {
    **TABLE,
    **LEVELLED,
    "solver_order": 2,
    "thresholding": False,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "lower_order_final": True,
    "use_flow_sigmas": False,
    "use_dynamic_shifting": False,
}
FROM_DPM: Keys = {"final_sigmas_type": "zero", "lambda_min_clipped": float("-inf"), "variance_type": None}

# How a class counts the steps of its `timestep_spacing`: all of them, or one more than it takes.
ALL: Mapping[str, str] = {"linspace": "linspace", "leading": "leading", "trailing": "trailing"}
ONE_MORE: Mapping[str, str] = {"linspace": "linspace_spare", "leading": "leading_spare", "trailing": "trailing"}
TAUGHT: Mapping[str, str] = dict.fromkeys(ALL, "lcm")
TO_FIRST: Mapping[str, str] = {  # the same spacings, to the first entry of the table
    name: f"{name}_first" for name in ("leading", "trailing", "linspace_spare", "leading_spare", "lcm")
}


@final
@dataclass(frozen=True, slots=True)
class Kind:
    """A class of diffusers.

    sampler: what it is, or the nearest; by: the keys that choose among several, samplers: those that are the same by
    what the keys say. defaults: what its keys are where they are left out; alike: with which values of them it does
    what is done here. spacings: ours by its `timestep_spacing`; inexact: those of them that are only near. held:
    whether the keys say that its walk ends at the table's first entry and not at data.
    """

    sampler: str
    defaults: Keys
    spacings: Mapping[str, str] = field(default_factory=lambda: ALL)
    alike: Alike = field(default_factory=dict)
    by: tuple[str, ...] = ()
    samplers: Mapping[tuple[Any, ...], str] = field(default_factory=dict)
    inexact: tuple[str, ...] = ()
    held: Callable[[Keys], bool] = lambda told: False


PLAIN: Alike = {"thresholding": (False,), "clip_sample": (False,)}
SOLVED: Alike = {
    "thresholding": (False,),
    "use_flow_sigmas": (False,),
    "use_dynamic_shifting": (False,),
}
MIDPOINT: Alike = {
    **SOLVED,
    "solver_type": ("midpoint", "logrho", "bh1", "bh2"),  # those of other classes it reads as its own
    "lambda_min_clipped": (float("-inf"),),
    "variance_type": (None,),
}
RATIO: Keys = {**COUNTED, **LEVELLED}
FIRST_ORDER: Mapping[tuple[Any, ...], str] = {
    ("dpmsolver++", 1): "ddim",
    ("dpmsolver", 1): "ddim",
    ("sde-dpmsolver++", 1): "ddpm",
}
CONSISTENT: Keys = {
    **LATENT,
    "beta_schedule": "scaled_linear",
    "original_inference_steps": 50,
    "thresholding": False,
    "clip_sample": False,
    "timestep_scaling": 10.0,
}
KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "PNDMScheduler": Kind(
            "pndm",
            {
                **TABLE,
                **COUNTED,
                "timestep_spacing": "leading",
                "skip_prk_steps": False,
                "set_alpha_to_one": False,
                "prediction_type": "epsilon",
            },
            alike={"skip_prk_steps": (True,), "prediction_type": ("epsilon",)},
            inexact=("linspace",),
            held=lambda told: not told["set_alpha_to_one"],
        ),
        "DDIMScheduler": Kind(
            "ddim",
            {
                **TABLE,
                **COUNTED,
                "timestep_spacing": "leading",
                "clip_sample": True,
                "thresholding": False,
                "set_alpha_to_one": True,
            },
            alike=PLAIN,
            inexact=("linspace",),
            held=lambda told: not told["set_alpha_to_one"],
        ),
        "DDPMScheduler": Kind(
            "ddpm",
            {
                **TABLE,
                **COUNTED,
                "timestep_spacing": "leading",
                "clip_sample": True,
                "thresholding": False,
                "variance_type": "fixed_small",
            },
            alike={**PLAIN, "variance_type": ("fixed_small", "fixed_small_log")},
            inexact=("linspace",),
        ),
        "EulerDiscreteScheduler": Kind(
            "euler",
            {
                **TABLE,
                **RATIO,
                "interpolation_type": "linear",
                "timestep_type": "discrete",
                "sigma_min": None,
                "sigma_max": None,
                "final_sigmas_type": "zero",
            },
            alike={
                "interpolation_type": ("linear",),
                "timestep_type": ("discrete",),
                "sigma_min": (None,),
                "sigma_max": (None,),
            },
            held=lambda told: told["final_sigmas_type"] == "sigma_min",
        ),
        "EulerAncestralDiscreteScheduler": Kind("euler_ancestral", {**TABLE, **COUNTED}),
        "HeunDiscreteScheduler": Kind(
            "heun", {**LATENT, **RATIO, "clip_sample": False}, alike={"clip_sample": (False,)}
        ),
        "LMSDiscreteScheduler": Kind("lms", {**TABLE, **RATIO}),
        "KDPM2DiscreteScheduler": Kind("dpm2", {**LATENT, **RATIO}),
        "KDPM2AncestralDiscreteScheduler": Kind("dpm2_ancestral", {**LATENT, **RATIO}),
        "DPMSolverMultistepScheduler": Kind(
            "dpmpp_2m",
            {**MANY_STEPS, **COUNTED, **FROM_DPM, "euler_at_final": False, "use_lu_lambdas": False},
            ONE_MORE,
            MIDPOINT,
            ("algorithm_type", "solver_order"),
            {
                **FIRST_ORDER,
                ("dpmsolver++", 2): "dpmpp_2m",
                ("deis", 2): "dpmpp_2m",
                ("sde-dpmsolver++", 2): "dpmpp_2m_sde",
            },
            held=lambda told: told["final_sigmas_type"] == "sigma_min",
        ),
        "DPMSolverSinglestepScheduler": Kind(
            "dpmpp_2s",
            {**MANY_STEPS, **FROM_DPM, "lower_order_final": False},
            ONE_MORE,
            MIDPOINT,
            ("algorithm_type", "solver_order"),
            {**FIRST_ORDER, ("dpmsolver++", 2): "dpmpp_2s", ("deis", 2): "dpmpp_2s"},
            held=lambda told: told["final_sigmas_type"] == "sigma_min",
        ),
        "UniPCMultistepScheduler": Kind(
            "unipc",
            {
                **{key: value for key, value in MANY_STEPS.items() if key != "algorithm_type"},
                **COUNTED,
                "predict_x0": True,
                "solver_type": "bh2",
                "disable_corrector": [],
                "solver_p": None,
                "final_sigmas_type": "zero",
                "sigma_min": None,
                "sigma_max": None,
                "shift_terminal": None,
            },
            ONE_MORE,
            {
                **SOLVED,
                "predict_x0": (True,),
                "solver_type": ("bh2", "midpoint", "heun", "logrho"),
                "disable_corrector": ([],),
                "solver_p": (None,),
                "sigma_min": (None,),
                "sigma_max": (None,),
                "shift_terminal": (None,),
            },
            ("solver_order",),
            {(2,): "unipc"},
            held=lambda told: told["final_sigmas_type"] == "sigma_min",
        ),
        "DEISMultistepScheduler": Kind(
            "deis",
            {**MANY_STEPS, **COUNTED, "algorithm_type": "deis", "solver_type": "logrho"},
            ONE_MORE,
            SOLVED,
            ("solver_order",),
            {(2,): "deis", (1,): "ddim"},
            held=lambda told: True,
        ),
        "LCMScheduler": Kind(
            "lcm",
            CONSISTENT,
            TAUGHT,
            {**PLAIN, "original_inference_steps": (50,), "timestep_scaling": (10.0,)},
        ),
        "TCDScheduler": Kind(  # without noise, as its pipelines take it unless an eta is asked for
            "ddim",
            {key: value for key, value in CONSISTENT.items() if key != "timestep_scaling"},
            TAUGHT,
            {**PLAIN, "original_inference_steps": (50,)},
            held=lambda told: True,
        ),
    }
)
UNKNOWN: Final = Kind("", {**LATENT, "beta_schedule": "scaled_linear"})  # which latent diffusion trains
