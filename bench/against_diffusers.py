"""The networks of Stable Diffusion beside diffusers': one step of the U-Net, decoding, loading, starting.

    python bench/against_diffusers.py [sd15] [sdxl] [sd3] [flux] [vae] [start] [--runs 5] [--json FILE]

Random weights of full size, the same in both; both engines take turns in one process, in an order that changes from
round to round; figures are medians, and ratios are medians of ratios within a round. "default" is what one gets who
asks for nothing: float32 with diffusers, what the machine does well with ours. "tuned" is the best that one can set by
hand with diffusers: the same dtype as ours and channels last. Equality of what comes out is measured beside it.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import diffusers
import torch
from diffusers import (
    AutoencoderKL,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from torch import Tensor, nn

from triptych.engine.codecs import kl
from triptych.engine.codecs.kl import KL
from triptych.engine.conditioning import Conditioning
from triptych.engine.nets import ldm
from triptych.engine.nets.flux import DEV, Flux, patches
from triptych.engine.nets.ldm import LatentUNet
from triptych.engine.nets.mmdit import SD3_MEDIUM, MMDiT, positions
from triptych.weights.layouts import flux as fluxes
from triptych.weights.layouts import gathered
from triptych.weights.layouts import mmdit as mmdits
from triptych.weights.layouts import unet as unets
from triptych.weights.layouts import vae as vaes

SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8}
SDXL = {
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD3 = {
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


def paired(ways: dict[str, Callable[[], Tensor]], runs: int) -> dict[str, float]:
    """Median seconds of each, and the ratio of the first to each of the others."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    names = list(ways)
    for turn in range(runs):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = time.perf_counter()
            ways[name]()
            taken[name].append(time.perf_counter() - began)
    first, *rest = names
    found = {name: round(statistics.median(seconds), 3) for name, seconds in taken.items()}
    for name in rest:
        pairs = zip(taken[first], taken[name], strict=True)
        found[f"{first} / {name}"] = round(statistics.median(a / b for a, b in pairs), 3)
    return found


def randomised(module: nn.Module) -> nn.Module:
    """Weights that let signals through, so that equality means something."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.ndim > 1:
                p.normal_(0, (1 / p[0].numel()) ** 0.5)
            elif name.endswith("weight"):
                p.fill_(1)
            else:
                p.zero_()
    return module.eval().requires_grad_(False)


def ours_like(network: nn.Module, theirs: nn.Module, layout: Callable[..., object]) -> nn.Module:
    """Our network on the meta device, filled with the other's tensors in their dtype."""
    shapes = {name: tuple(p.shape) for name, p in network.state_dict().items()}
    state = theirs.state_dict()
    network.load_state_dict(gathered(layout(shapes), shapes, state.__getitem__), assign=True)
    return network.eval().requires_grad_(False)


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((a.float() - b.float()).abs().max() / b.float().abs().max())


def unet(kind: str, side: int, batch: int, runs: int, whole: bool) -> dict[str, object]:
    """One step; whole: diffusers in float32 too, which SDXL has no room for beside ours."""
    torch.manual_seed(0)
    shape, told = (ldm.SD15, SD15) if kind == "sd15" else (ldm.SDXL, SDXL)
    with torch.device("meta"):
        theirs, ours = UNet2DConditionModel(**told), LatentUNet(shape)
    theirs = randomised(theirs.to_empty(device="cpu") if whole else theirs.to(torch.bfloat16).to_empty(device="cpu"))
    tuned = theirs
    if whole:
        tuned = UNet2DConditionModel(**told).to(torch.bfloat16)
        tuned.load_state_dict(theirs.state_dict())
    tuned = tuned.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    ours = ours_like(ours, tuned, unets.diffusers).to(memory_format=torch.channels_last)
    x, t = torch.randn(batch, 4, side // 8, side // 8), torch.full((batch,), 500.0)
    tokens = torch.randn(batch, 77, told["cross_attention_dim"])
    vector = None if shape.vector is None else torch.randn(batch, shape.vector)
    cond = Conditioning(tokens=tokens, vector=vector)
    added = None
    if vector is not None:
        ids = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]]).repeat(batch, 1)
        flat = tuned.add_time_proj(ids.flatten()).reshape(batch, -1)
        cond = Conditioning(tokens=tokens, vector=torch.cat([vector[:, :1280], flat], dim=1))
        added = {"text_embeds": vector[:, :1280], "time_ids": ids}

    def asked(network: nn.Module, dtype: torch.dtype) -> Callable[[], Tensor]:
        extra = None if added is None else {name: value.to(dtype) for name, value in added.items()}

        @torch.inference_mode()
        def run() -> Tensor:
            return network(x.to(dtype), t, tokens.to(dtype), added_cond_kwargs=extra).sample

        return run

    @torch.inference_mode()
    def run() -> Tensor:
        return ours(x, t, cond)

    ways = {"ours": run, "tuned": asked(tuned, torch.bfloat16)}
    if whole:
        ways["default"] = asked(theirs, torch.float32)
    found: dict[str, object] = dict(paired(ways, runs))
    found["apart from tuned"] = round(apart(run(), ways["tuned"]()), 5)
    if whole:
        found["tuned apart from default"] = round(apart(ways["tuned"](), ways["default"]()), 5)
        found["apart from default"] = round(apart(run(), ways["default"]()), 5)
    return found


def flow(kind: str, side: int, runs: int) -> dict[str, object]:
    """One step of a flow-matching transformer, of FLUX.1 with 2 + 4 of its blocks: without guidance, as it is told."""
    torch.manual_seed(0)
    guided = kind == "flux"
    with torch.device("meta"):
        if guided:
            theirs = FluxTransformer2DModel(num_layers=2, num_single_layers=4, guidance_embeds=True)
            ours: nn.Module = Flux(replace(DEV, doubles=2, singles=4))
        else:
            theirs, ours = SD3Transformer2DModel(**SD3), MMDiT(SD3_MEDIUM)
    theirs = randomised(theirs.to_empty(device="cpu"))
    if not guided:  # a table that is not learned
        theirs.pos_embed.pos_embed.copy_(positions(SD3["pos_embed_max_size"], 1536))
    tuned = deepcopy(theirs).to(torch.bfloat16)
    ours = ours_like(ours, tuned, fluxes.diffusers if guided else mmdits.diffusers)
    latents = side // 8
    x, t, width = torch.randn(1, 16, latents, latents), torch.tensor([500.0]), 4096
    tokens = torch.randn(1, 512 if guided else 77 + 256, width)
    vector, scale = torch.randn(1, 768 if guided else 2048), torch.tensor([3.5])
    cond = Conditioning(tokens=tokens, vector=vector, scalars={"guidance": scale} if guided else {})
    ids = FluxPipeline._prepare_latent_image_ids(1, latents // 2, latents // 2, "cpu", torch.float32)

    def asked(network: nn.Module, dtype: torch.dtype) -> Callable[[], Tensor]:
        told = {"encoder_hidden_states": tokens.to(dtype), "pooled_projections": vector.to(dtype)}
        if guided:
            places = {"img_ids": ids, "txt_ids": torch.zeros(tokens.shape[1], 3)}
            told |= {**places, "guidance": scale, "hidden_states": patches(x).to(dtype), "timestep": t / 1000}
        else:
            told |= {"hidden_states": x.to(dtype), "timestep": t}

        @torch.inference_mode()
        def run() -> Tensor:
            return network(**told).sample

        return run

    @torch.inference_mode()
    def run() -> Tensor:
        return patches(ours(x, t, cond)) if guided else ours(x, t, cond)

    ways = {"ours": run, "tuned": asked(tuned, torch.bfloat16), "default": asked(theirs, torch.float32)}
    found: dict[str, object] = dict(paired(ways, runs))
    exact = ways["default"]()
    return found | {
        "apart from default": round(apart(run(), exact), 5),
        "tuned apart from default": round(apart(ways["tuned"](), exact), 5),
    }


def vae(side: int, runs: int) -> dict[str, object]:
    """Decoding one picture."""
    torch.manual_seed(0)
    theirs = randomised(AutoencoderKL(**VAE))
    tuned = AutoencoderKL(**VAE).to(torch.bfloat16)
    tuned.load_state_dict(theirs.state_dict())
    tuned = tuned.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    with torch.device("meta"):
        codec = KL(kl.SD15)
    codec = ours_like(codec, tuned, vaes.diffusers).to(memory_format=torch.channels_last)
    z = torch.randn(1, 4, side // 8, side // 8)

    @torch.inference_mode()
    def ours() -> Tensor:
        return codec.decode(z)

    @torch.inference_mode()
    def by_hand() -> Tensor:
        return tuned.decode(z.to(torch.bfloat16) / 0.18215).sample

    @torch.inference_mode()
    def default() -> Tensor:
        return theirs.decode(z / 0.18215).sample

    found: dict[str, object] = dict(paired({"ours": ours, "tuned": by_hand, "default": default}, runs))
    found["apart from default"], found["tuned apart"] = (
        round(apart(ours(), default()), 5),
        round(apart(by_hand(), default()), 5),
    )
    return found


OURS = """
import sys, time
from dataclasses import replace
import torch
from triptych.families import cards, load
from triptych.model import generate, prepared
from triptych.types import Request
card = cards()["sd15"]
asked = Request("sd15", "a red fox", seed=1, steps=1, height=256, width=256, sampler="euler", spacing="trailing")
asked = card.resolve(asked)
model = load(replace(card, settings={**card.settings, "source": sys.argv[1]}), "cpu", "bfloat16")
model = prepared(model, asked, {})
print("loaded", flush=True)
next(generate(model, asked))
print("stepped", flush=True)
"""
THEIRS = """
import sys
import torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.bfloat16)
pipe.unet.to(memory_format=torch.channels_last)
print("loaded", flush=True)
def stop(pipe, n, t, told):
    print("stepped", flush=True)
    sys.exit()
pipe("a red fox", num_inference_steps=1, height=256, width=256, callback_on_step_end=stop)
"""


def started(code: str, folder: Path) -> dict[str, float]:
    """Seconds from the start of a process until it has loaded and until its first step is done; its peak in MiB."""
    began, found = time.perf_counter(), dict[str, float]()
    told = [sys.executable, "-W", "ignore", "-c", code, str(folder)]
    with subprocess.Popen(told, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() in ("loaded", "stepped"):
                found[line.strip()] = time.perf_counter() - began
                status = Path(f"/proc/{process.pid}/status").read_text()
                found |= {
                    f"{name}, MiB, {line.strip()}": int(value.split()[0]) // 1024
                    for name, value in (row.split(":", 1) for row in status.splitlines())
                    if name in ("VmHWM", "RssAnon")
                }
    if "stepped" not in found:
        raise SystemExit("one of the two did not reach its first step")
    return found


def full_folder(folder: Path) -> None:
    """Stable Diffusion 1.5 with random weights of full size in half precision, as diffusers saves it."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from triptych.text.clip_tokens import merges, vocabulary

    config = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408,
        bos_token_id=49406, eos_token_id=49407,
    )  # fmt: skip
    pipe = diffusers.StableDiffusionPipeline(
        unet=randomised(UNet2DConditionModel(**SD15)),
        vae=randomised(AutoencoderKL(**VAE)),
        text_encoder=randomised(CLIPTextModel(config)),
        tokenizer=CLIPTokenizer(vocab=vocabulary(), merges=merges(), model_max_length=77),
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", timestep_spacing="trailing"),
        safety_checker=None,
        feature_extractor=None,
    )
    pipe.to(torch.float16).save_pretrained(folder)


def start(runs: int) -> dict[str, object]:
    """From nothing to the first step, both in bfloat16 from the same folder, one after the other."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        full_folder(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*.safetensors")) // 2**20
        both = [(started(OURS, folder), started(THEIRS, folder)) for _ in range(runs)]
    found: dict[str, object] = {"weights, MiB": size}
    for name in both[0][0]:
        ours, theirs = (statistics.median(pair[side][name] for pair in both) for side in (0, 1))
        found[name] = {"ours": round(ours, 2), "diffusers": round(theirs, 2), "ratio": round(ours / theirs, 3)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["sd15", "sdxl", "sd3", "flux", "vae", "start"])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    told = parser.parse_args()
    figures: dict[str, object] = {
        "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__, "diffusers": diffusers.__version__}
    }
    plans: dict[str, Callable[[], object]] = {}
    if "sd15" in told.what:
        plans |= {f"SD 1.5, 512 px, batch {n}": lambda n=n: unet("sd15", 512, n, told.runs, True) for n in (1, 2)}
    if "sdxl" in told.what:
        plans |= {f"SDXL, {n} px, batch 1": lambda n=n: unet("sdxl", n, 1, told.runs, False) for n in (512, 1024)}
    if "sd3" in told.what:
        plans |= {"SD3 medium, 512 px": lambda: flow("sd3", 512, told.runs)}
    if "flux" in told.what:
        plans |= {f"FLUX.1 with 2 + 4 blocks, {n} px": lambda n=n: flow("flux", n, told.runs) for n in (512, 1024)}
    if "vae" in told.what:
        plans |= {f"VAE decode, {n} px": lambda n=n: vae(n, told.runs) for n in (512, 1024)}
    if "start" in told.what:
        plans |= {"SD 1.5, from nothing to the first step": lambda: start(told.runs)}
    for name, plan in plans.items():
        figures[name] = plan()
        print(name, json.dumps(figures[name], indent=2), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    figures["peak of this whole process, MiB"] = peak
    if told.json:
        told.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
