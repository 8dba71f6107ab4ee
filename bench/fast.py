"""The faster ways (`fast`, `merge`, a guidance interval): how much less time they take, how far from exact they are.

    python bench/fast.py [mini] [sd15] [sd3] [flux] [merge15] [mergexl] [--every 2 3 4] [--prompts 20] [--steps 25]
        [--side 256] [--blocks 2 4] [--runs 5] [--json FILE]

"mini": mini-image with its shipped weights, default settings, a walk and its decoding; PSNR between decoded pictures.
Beside it stand walks of as many steps as are full, which anybody can have without `fast`, and guidance in a part of
the walk. "sd15": the U-Net of Stable Diffusion 1.5 at full width, guided, PSNR between latents over their own range.
"sd3" and "flux": the same of SD3 medium, guided, and of FLUX.1 dev with `--blocks` of its 19 + 38, both in
bfloat16; what is computed at every step is one block of them. "merge15", "mergexl": one step of it at 512 px and of
SDXL's at 1024 px, in bfloat16, a share of the finest places merged; PSNR of what the network says over its own range.
Weights are random in all but the first: the time is that of the published ones, the PSNR says little about them.
Every way takes its turn for each prompt or run, in one process; times are CPU seconds, ratios medians of ratios
within a prompt or run.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from triptych import families
from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import NetworkDenoiser, flow_target, noise_target
from triptych.engine.guidance import ClassifierFree
from triptych.engine.nets import ldm
from triptych.engine.nets.fast import Fast
from triptych.engine.nets.flux import DEV, Flux
from triptych.engine.nets.ldm import LatentUNet, Shape
from triptych.engine.nets.mmdit import SD3_MEDIUM, MMDiT
from triptych.engine.path import Discrete, Linear, scaled_linear_betas
from triptych.engine.samplers import SAMPLERS
from triptych.engine.spacing import SPACINGS, Shifted
from triptych.model import decode, generate, prepared
from triptych.types import Request

PROMPTS = (
    "a red heart", "a snake flicking its tongue", "a green frog", "a slice of pizza", "a yellow taxi", "a rocket",
    "a blue whale", "a birthday cake", "a sleeping cat", "a sunflower", "a snowman", "a guitar", "a pair of scissors",
    "a lion", "an umbrella in the rain", "a purple octopus", "a cup of coffee", "a house with a garden", "a bee",
    "a smiling face with glasses",
)  # fmt: skip
WHAT = ("mini", "sd15", "sd3", "flux", "merge15", "mergexl")
PARTS = ((0.0, 0.5), (0.0, 0.8), (0.2, 1.0), (0.1, 0.8))  # of the walk, where guidance acts
SHARES = (0.25, 0.5, 0.75)
Way = Callable[[], Tensor]


def taken(way: Way) -> tuple[float, Tensor]:
    """(CPU seconds, what came out)."""
    began = time.process_time()
    with torch.no_grad():
        found = way()
    return time.process_time() - began, found


def psnr(a: Tensor, b: Tensor, reach: float) -> float:
    """Decibels, of samples that are `reach` apart at most."""
    return -10 * math.log10(max(float((a - b).square().mean()) / reach**2, 1e-12))


def told(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """pairs: (time ratio, dB) of one way."""
    ratios, kept = ([round(x, 2) for x in sorted(values)] for values in zip(*pairs, strict=True))
    return {
        "times faster": round(statistics.median(ratios), 2),
        "dB": round(statistics.median(kept), 1),
        "dB kept by nine in ten": kept[len(kept) // 10],
        "dB, least": kept[0],
    }


def compared(exact: Way, ways: dict[str, Way], reach: Callable[[Tensor], float]) -> Iterator[tuple[str, float, float]]:
    """(way, time ratio, dB) of each, beside the exact one."""
    base, expected = taken(exact)
    for name, way in ways.items():
        seconds, found = taken(way)
        yield name, base / seconds, psnr(found, expected, reach(expected))


def full(steps: int, n: int) -> int:
    """How many steps are full: 0, n, 2n, ..., and the one after the first."""
    return math.ceil(steps / n) + (n > 1)


def mini(every: Sequence[int], prompts: int) -> dict[str, dict[str, float]]:
    card = families.cards()["mini-image"]
    model = families.load(card, "cpu", "float32")

    def way(prompt: str, seed: int, steps: int, **options: float) -> Way:
        request = card.resolve(Request(card.name, prompt, seed=seed, steps=steps, options=options))

        def run() -> Tensor:
            *_, last = generate(prepared(model, request, {}), request)
            return decode(model, last.x_t).clamp(-1, 1)

        return run

    steps = card.fields["steps"].default
    pairs: dict[str, list[tuple[float, float]]] = {}
    taken(way(PROMPTS[0], 0, steps))
    for seed, prompt in enumerate(PROMPTS[:prompts]):
        ways = {f"fast {n}": way(prompt, seed, steps, fast=n) for n in every}
        ways |= {f"{full(steps, n)} of {steps} steps": way(prompt, seed, full(steps, n)) for n in every}
        ways |= {
            f"guided from {start:g} to {stop:g}": way(prompt, seed, steps, guidance_start=start, guidance_stop=stop)
            for start, stop in PARTS
        }
        for name, ratio, kept in compared(way(prompt, seed, steps), ways, lambda _: 2.0):
            pairs.setdefault(name, []).append((ratio, kept))
    return {name: told(found) for name, found in pairs.items()}


def randomised(module: nn.Module) -> nn.Module:
    """Weights that let signals through."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.ndim > 1:
                p.normal_(0, (1 / p[0].numel()) ** 0.5)
            else:
                p.fill_(float(name.endswith("weight")))
    return module.eval().requires_grad_(False)


def sd15(every: Sequence[int], steps: int, side: int) -> dict[str, dict[str, float]]:
    torch.manual_seed(0)
    network = LatentUNet(ldm.SD15)
    randomised(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    path = Discrete(scaled_linear_betas())
    cond, uncond = (Conditioning(tokens=torch.randn(1, 77, 768)) for _ in range(2))
    start = torch.randn(1, 4, side // 8, side // 8)
    times = SPACINGS["karras"](path, steps, start[0].numel())

    def way(n: int) -> Way:
        def run() -> Tensor:
            used = network if n == 1 else Fast(network.around, n)
            denoiser = NetworkDenoiser(used, path, noise_target, lambda t: 1000 * t - 1)
            guided = ClassifierFree(denoiser, 7.5, uncond)
            *_, last = SAMPLERS["dpmpp_2m"](guided, start, times, cond, torch.randn_like)
            return last.x_t

        return run

    taken(lambda: network(start, torch.tensor([500.0]), cond))
    found = compared(way(1), {f"fast {n}": way(n) for n in every}, lambda x: float(x.max() - x.min()))
    return {name: told([(ratio, kept)]) for name, ratio, kept in found}


def flow(kind: str, every: Sequence[int], steps: int, side: int, blocks: Sequence[int]) -> dict[str, dict[str, float]]:
    """A walk of a flow-matching transformer, of FLUX.1 with so many of its double and its single blocks."""
    torch.manual_seed(0)
    guided = kind == "sd3"
    with torch.device("meta"):
        network = MMDiT(SD3_MEDIUM) if guided else Flux(replace(DEV, doubles=blocks[0], singles=blocks[1]))
    network = randomised(network.to(torch.bfloat16).to_empty(device="cpu"))
    length, vector = (77 + 256, 2048) if guided else (512, 768)
    scalars = {} if guided else {"guidance": torch.tensor([3.5])}
    cond, uncond = (
        Conditioning(tokens=torch.randn(1, length, 4096), vector=torch.randn(1, vector), scalars=scalars)
        for _ in range(2)
    )
    path, start = Linear(), torch.randn(1, 16, side // 8, side // 8)
    times = Shifted(3.0, SPACINGS["uniform"])(path, steps, start[0].numel())

    def way(n: int) -> Way:
        def run() -> Tensor:
            used = network if n == 1 else Fast(network.around, n)
            denoiser = NetworkDenoiser(used, path, flow_target, lambda t: 1000 * t)
            walking = ClassifierFree(denoiser, 5.0, uncond) if guided else denoiser
            *_, last = SAMPLERS["euler"](walking, start, times, cond, torch.randn_like)
            return last.x_t

        return run

    taken(lambda: network(start, torch.tensor([500.0]), cond))
    found = compared(way(1), {f"fast {n}": way(n) for n in every}, lambda x: float(x.max() - x.min()))
    return {name: told([(ratio, kept)]) for name, ratio, kept in found}


def merged(shape: Shape, side: int, runs: int) -> dict[str, dict[str, float]]:
    torch.manual_seed(0)
    with torch.device("meta"):
        network = LatentUNet(shape)
    network = randomised(network.to(torch.bfloat16).to_empty(device="cpu"))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    vector = None if shape.vector is None else torch.randn(1, shape.vector)
    cond = Conditioning(tokens=torch.randn(1, 77, shape.context), vector=vector)
    x = torch.randn(1, 4, side // 8, side // 8)

    def way(share: float) -> Way:
        def run() -> Tensor:
            network.merge(share)
            return network(x, torch.tensor([500.0]), cond).float()

        return run

    exact = taken(way(0.0))[1]
    pairs: dict[str, list[tuple[float, float]]] = {}
    seconds = []
    for _ in range(runs):
        base, _ = taken(way(0.0))
        seconds.append(base)
        for share in SHARES:
            other, found = taken(way(share))
            kept = psnr(found, exact, float(exact.max() - exact.min()))
            pairs.setdefault(f"merge {share:g}", []).append((base / other, kept))
    return {"exact": {"seconds": round(statistics.median(seconds), 2)}} | {n: told(found) for n, found in pairs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=list(WHAT), choices=WHAT)
    parser.add_argument("--every", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--steps", type=int, default=25, help="of sd15, sd3, flux")
    parser.add_argument("--side", type=int, default=256, help="of sd15, sd3, flux, in pixels")
    parser.add_argument("--blocks", type=int, nargs=2, default=[2, 4], help="of flux: of its 19 + 38")
    parser.add_argument("--runs", type=int, default=5, help="of each step that is merged")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    figures: dict[str, object] = {"threads": torch.get_num_threads()}
    if "mini" in asked.what:
        figures["mini"] = mini(asked.every, asked.prompts)
    if "sd15" in asked.what:
        figures["sd15, random weights"] = sd15(asked.every, asked.steps, asked.side)
    for kind, what in (("sd3", "SD3 medium"), ("flux", "FLUX.1 dev, {} + {} blocks".format(*asked.blocks))):
        if kind in asked.what:
            figures[f"{what}, random weights"] = flow(kind, asked.every, asked.steps, asked.side, asked.blocks)
    if "merge15" in asked.what:
        figures["sd15, 512 px, one step, random weights"] = merged(ldm.SD15, 512, asked.runs)
    if "mergexl" in asked.what:
        figures["sdxl, 1024 px, one step, random weights"] = merged(ldm.SDXL, 1024, asked.runs)
    text = json.dumps(figures, indent=2)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
