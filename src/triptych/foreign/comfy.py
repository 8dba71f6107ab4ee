"""Pictures of ComfyUI: from the node that saves back to the first that samples, and to all that goes into it."""

from collections.abc import Mapping
from math import nextafter
from types import MappingProxyType
from typing import Any, Final, final

from triptych.errors import NoRecipe
from triptych.foreign import names
from triptych.foreign.graph import Graph, Node, graph
from triptych.foreign.inflow import given_hints, given_latent, given_model, given_prompt, given_skip
from triptych.foreign.told import SEEDS, Foreign, short

__all__ = ["read"]

SAVING: Final = ("SaveImage", "SaveAnimated", "Image Save", "ImageSave", "PreviewImage")
APART: Final = ("model", "clip", "vae", "positive", "negative", "conditioning", "control_net", "guider", "sigmas")
DECODING: Final = ("VAEDecode", "VAELoader", "Reroute", *SAVING)


def read(text: str, where: str) -> Foreign:
    """What the `prompt` of a picture, a graph, says. Raises NoRecipe where it is none, or none that samples."""
    nodes = graph(text, where)
    saved, first = _first(nodes, where)
    reading = _Reading(nodes, first)
    reading.later(saved)
    return reading.foreign()


def _samples(node: Node) -> bool:
    return node.kind.startswith("SamplerCustom") or {"steps", "cfg", "sampler_name"} <= node.inputs.keys()


def _first(nodes: Graph, where: str) -> tuple[Node, Node]:
    """(what is saved, the first node that samples behind it)."""
    saving = [node for kind in SAVING for node in nodes.nodes.values() if node.kind.startswith(kind)]
    for saved in [*saving[:100], *filter(_samples, nodes.nodes.values())]:
        first = next((node for node in nodes.behind([saved]) if _samples(node)), None)
        if first is not None:
            return saved, _earliest(nodes, first)
    kinds = short(", ".join(sorted({node.kind for node in nodes.nodes.values()})), 300)
    raise NoRecipe(f"{where}: no node of ComfyUI's workflow inside samples in a way that is known here ({kinds}).")


def _earliest(nodes: Graph, node: Node) -> Node:
    """Back through latents and pictures, from one that samples to the one before it."""
    seen = {node.id}
    while True:
        behind = nodes.behind(nodes.sources(node, APART), APART)
        before = next((one for one in behind if _samples(one) and one.id not in seen), None)
        if before is None:
            return node
        seen.add(before.id)
        node = before


# What nodes say by being there: of times and solvers that are no names in a list.
TIMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "KarrasScheduler": "karras",
        "ExponentialScheduler": "exponential",
        "PolyexponentialScheduler": "polyexponential",
        "LaplaceScheduler": "laplace",
        "VPScheduler": "vp",
        "BetaSamplingScheduler": "beta",
        "SDTurboScheduler": "turbo",
        "AlignYourStepsScheduler": "align your steps",
    }
)
SOLVERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "SamplerEulerAncestral": "euler_ancestral",
        "SamplerDPMPP_2S_Ancestral": "dpmpp_2s_ancestral",
        "SamplerDPMPP_SDE": "dpmpp_sde",
        "SamplerDPMPP_2M_SDE": "dpmpp_2m_sde",
        "SamplerDPMPP_3M_SDE": "dpmpp_3m_sde",
        "SamplerLMS": "lms",
        "SamplerDPMAdaptative": "dpm_adaptive",
        "SamplerER_SDE": "er_sde",
    }
)
USUAL: Final[Mapping[str, float]] = MappingProxyType(  # knobs as they are where nobody turned them
    {"sigma_max": 14.614642, "sigma_min": 0.0291675, "s_noise": 1, "alpha": 0.6, "beta": 0.6}
)


@final
class _Reading:
    """One sampling node and those that tell it what to do; `lost` grows as they are read."""

    def __init__(self, nodes: Graph, first: Node) -> None:
        self.graph, self.first = nodes, first
        self.lost: list[str] = []
        self.noise, self.guider, self.solver = (
            nodes.at(first, name) or first for name in ("noise", "guider", "sampler")
        )
        self.times = self._times(first)

    def foreign(self) -> Foreign:
        latent, inputs = given_latent(self.graph, self.first, self.lost)
        model, loras, options = given_model(self.graph, self.guider, self.lost)
        hints = given_hints(self.graph, self.guider, self.lost)
        prompt, speaking = given_prompt(self.graph, self.guider, "positive", self.lost)
        negative, _ = given_prompt(self.graph, self.guider, "negative", self.lost)
        skip = given_skip(self.graph, speaking)
        fields = latent | self._walk(bool(inputs))
        eta = self.graph.value(self.solver, "eta", float)
        more = {"profile": "comfy", "clip_skip": skip, "eta": eta, **self._noise(), **options}
        told = {name: value for name, value in more.items() if value is not None}
        lost = tuple(dict.fromkeys(self.lost))
        return Foreign("ComfyUI", prompt, negative, fields, told, model, "", loras, inputs, lost, hints)

    def later(self, saved: Node) -> None:
        """What happens between the first node that samples and what is saved."""
        before = {node.id for node in self.graph.behind([self.first])}
        after = [node for node in self.graph.behind([saved]) if node.id not in before]
        changing = [str(node) for node in after if not node.kind.startswith(DECODING)]
        if changing:
            self.lost.append(f"{short(', '.join(changing), 400)}: what comes after {self.first} is not done here.")
        if any(node.kind == "VAELoader" for node in after):
            self.lost.append("VAELoader: the model's own autoencoder is used.")

    def _times(self, node: Node) -> Node:
        """The node that lays the times out, behind those that change them."""
        found, seen = self.graph.at(node, "sigmas") or node, set[str]()
        while "steps" not in found.inputs and found.id not in seen:
            seen.add(found.id)
            self.lost.append(f"{found}: what it does to the times has no equivalent here.")
            found = self.graph.at(found, "sigmas") or found
        return found

    def _walk(self, started: bool) -> dict[str, Any]:
        steps = self.graph.value(self.times, "steps", int)
        found: dict[str, Any] = {"seed": self._seed(), "guidance_scale": self._guidance()}
        found |= self._named() | self._share(steps, started)
        for name in ("steps", "guidance_scale", "seed", "sampler", "spacing"):
            if found.get(name) is None:
                self.lost.append(f"{name}: it comes from a node that is not known here; the model's default is taken.")
        return {name: value for name, value in found.items() if value is not None}

    def _given_seed(self) -> int | None:
        values = (self.graph.value(self.noise, name, int) for name in ("noise_seed", "seed"))
        return next((value for value in values if value is not None), None)

    def _noise(self) -> dict[str, Any]:
        """Of the noise of the steps, what is left of its seed, which is of 64 bits, and where it is drawn."""
        seed, name = self._given_seed() or 0, self._solver() or ""
        device = self.graph.value(self.solver, "noise_device", str) or ("gpu" if name.endswith("_gpu") else None)
        more = (seed - seed % SEEDS + 2**63) % 2**64 - 2**63
        drawing = names.sampler(name)[0] in (*names.DRAWING, *names.MOVING)
        return {"noise": device, "noise_delta": more if more and drawing else None}

    def _solver(self) -> str | None:
        return self.graph.value(self.solver, "sampler_name", str) or SOLVERS.get(self.solver.kind)

    def _seed(self) -> int | None:
        seed = self._given_seed()
        if "disable" in (self.first.inputs.get("add_noise"), self.noise.inputs.get("add_noise")):
            self.lost.append(f"{self.first}: it adds no noise of its own; here noise is drawn.")
        return None if seed is None else seed % SEEDS

    def _guidance(self) -> float | None:
        return 1.0 if self.guider.kind == "BasicGuider" else self.graph.value(self.guider, "cfg", float)

    def _named(self) -> dict[str, str]:
        """The sampler and the spacing, by our names."""
        name = self._solver()
        times = self.graph.value(self.times, "scheduler", str) or TIMES.get(self.times.kind)
        if times == "align your steps" and self.times.inputs.get("model_type") == "SDXL":
            times = "align your steps xl"
        found = {}
        if name is not None:
            found["sampler"], sentence = names.sampler(name)
            self.lost += [sentence] if sentence else []
        if times is not None:
            found["spacing"], sentence = names.spacing(times)
            self.lost += [sentence] if sentence else []
        for node in {self.times.id: self.times, self.solver.id: self.solver}.values():
            self._knobs(node)
        return found

    def _knobs(self, node: Node) -> None:
        rho = 1 if node.kind == "PolyexponentialScheduler" else 7
        for name, usual in {**USUAL, "rho": rho}.items():
            value = self.graph.value(node, name, float)
            if value is not None and abs(value - usual) > 1e-4:
                self.lost.append(f"{node}: {name} {value:g} has no equivalent here; it is {usual:g}.")

    def _share(self, steps: int | None, started: bool) -> dict[str, Any]:
        """Steps of the whole path, and the share of it that is walked: ComfyUI's steps are those that are taken."""
        denoise, start, end = (
            self.graph.value(node, name, float)
            for node, name in (
                (self.times, "denoise"),
                (self.first, "start_at_step"),
                (self.first, "end_at_step"),
            )
        )
        if steps is None or not 0 < steps <= 10_000:
            return {"steps": steps}
        if end is not None and end < steps:
            self.lost.append(f"{self.first}: it ends at step {end:g} of {steps}; here the whole path is walked.")
        taken, whole = steps - int(start or 0), steps
        if denoise is not None and 0.001 <= denoise < 1:
            taken, whole = steps, int(steps / denoise)
        if started:
            return {"steps": whole, "strength": share(taken, whole)} if taken > 0 else {"steps": whole}
        if taken < whole:
            self.lost.append(f"{self.first}: a part of the path from nothing; here the whole path is walked.")
        return {"steps": steps}


def share(taken: int, whole: int) -> float:
    """The share of so many steps that are whole ones taken, whichever way it is rounded."""
    found = taken / whole
    return found if int(whole * found) == taken else nextafter(found, 1)
