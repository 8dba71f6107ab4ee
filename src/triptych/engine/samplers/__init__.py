"""Samplers, each a generator over (t, x_t, prediction), written once for every path and any shape."""

from triptych.engine.frame import ratio_frame
from triptych.engine.samplers.dpmpp import Dpmpp2SAncestral, DpmppMultistep, dpmpp_2s
from triptych.engine.samplers.multistep import AdamsBashforth, deis_weights, ipndm_weights, lms_weights, pndm
from triptych.engine.samplers.onestep import Ancestral, Dpm2, euler, heun, lcm
from triptych.engine.samplers.step import Noise, Sampler, Step
from triptych.engine.samplers.unipc import UniPC

__all__ = ["SAMPLERS", "Noise", "Sampler", "Step"]

SAMPLERS: dict[str, Sampler] = {
    "ddpm": Ancestral(eta=1.0),
    "ddim": Ancestral(eta=0.0),
    "euler": euler,
    "euler_ancestral": Ancestral(eta=1.0),
    "heun": heun,
    "dpm2": Dpm2(),
    "dpm2_ancestral": Dpm2(eta=1.0),
    "dpmpp_2s": dpmpp_2s,
    "dpmpp_2s_ancestral": Dpmpp2SAncestral(),
    "dpmpp_2m": DpmppMultistep(order=2),
    "dpmpp_2m_sde": DpmppMultistep(order=2, eta=1.0),
    "dpmpp_3m_sde": DpmppMultistep(order=3, eta=1.0),
    "unipc": UniPC(),
    "lms": AdamsBashforth(lms_weights, 4),
    "deis": AdamsBashforth(deis_weights, 2, ratio_frame),
    "ipndm": AdamsBashforth(ipndm_weights, 4),
    "pndm": pndm,
    "lcm": lcm,
}
