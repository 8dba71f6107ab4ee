"""Pictures of AUTOMATIC1111's web UI, and of Forge and SD.Next, which write as it does."""

import json
import re
from collections.abc import Mapping
from math import isfinite
from types import MappingProxyType
from typing import Any, Final

from triptych.errors import NoRecipe
from triptych.foreign import names
from triptych.foreign.infotext import Pairs, parsed
from triptych.foreign.told import SEEDS, Foreign, Lora, short

__all__ = ["read"]


def read(text: str, where: str) -> Foreign:
    """What the `parameters` of a picture say. Raises NoRecipe where they are something else."""
    written, negative, pairs = parsed(text)
    if not pairs:
        raise NoRecipe(f"{where}: the parameters inside are not as AUTOMATIC1111's web UI writes them.")
    told = Pairs(pairs)
    program = _program(told)
    prompt, loras = _prompt(written, told)
    second = _second(told)
    inputs = _inputs(told)
    fields = _fields(told, inputs)
    options = _options(told) | _stepped(second, fields.get("steps"))
    model, digest = told.take("Model"), told.take("Model hash")
    _noise(told, fields)
    _rest(told)
    return Foreign(
        program, prompt, negative, fields, options, model, digest, loras, inputs, tuple(dict.fromkeys(told.lost))
    )


def _program(told: Pairs) -> str:
    version, app = told.take("Version"), told.take("App")
    told.left.pop("Pipeline", None)
    if app:
        return f"{app} {version}".strip()
    if re.match(r"f\d|.*forge", version, re.IGNORECASE):
        return f"Forge {version}"
    return f"AUTOMATIC1111's web UI {version}".strip() if version[:1] in ("", "v") else version


_NETWORK: Final = re.compile(r"<(\w{1,20}):([^<>]{1,300})>")
_AND: Final = re.compile(r"\bAND\b")
_WEIGHT: Final = re.compile(r":\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*$")


def _prompt(written: str, told: Pairs) -> tuple[str, tuple[Lora, ...]]:
    """The prompt without the names of networks in it, and those that are LoRAs."""
    loras = []
    for kind, text in _NETWORK.findall(written):
        if kind.lower() in ("lora", "lyco"):
            loras.append(_lora(text))
        else:
            told.lost.append(f"<{kind}:{short(text)}>: networks of this kind are not read here.")
    prompt = _NETWORK.sub("", written)
    first, *others = _AND.split(prompt)
    if others:
        told.lost.append("AND: prompts are not composed here; the first alone is told.")
        prompt = _WEIGHT.sub("", first)
    return prompt.strip(), tuple(loras)


def _lora(text: str) -> Lora:
    """`name`, `name:weight`, `name:weight of the text towers:of the network`, or these by name."""
    name, *rest = (part.strip() for part in text.split(":"))
    named = dict(part.partition("=")[::2] for part in rest if "=" in part)
    plain = [part for part in rest if "=" not in part]
    text_weight = _float(named.get("te", plain[0] if plain else ""), 1.0)
    weight = _float(named.get("unet", plain[1] if len(plain) > 1 else ""), text_weight)
    return Lora(name, weight, text_weight)


def _float(text: str, otherwise: float) -> float:
    try:
        number = float(text)
    except ValueError:
        return otherwise
    return number if isfinite(number) else otherwise


HIRES: Final = r"Hires\b|HiRes\b|First pass size|Refine$"


def _second(told: Pairs) -> dict[str, Any]:
    """The options of hires fix, whose strength is written as that of img2img is."""
    if not told.has(HIRES):
        return {}
    factor = told.number("Hires upscale", float) or told.number("Hires scale", float)
    if factor is None:
        named = told.matching(f"{HIRES}|Denoising strength")
        told.lost.append(f"{named}: a second pass to a size of its own is not made here; the first alone is.")
        return {}
    strength = told.number("Denoising strength", float) or told.number("Hires strength", float)
    found = {"hires": factor, "hires_strength": strength, "hires_steps": told.number("Hires steps", int) or None}
    if rest := told.matching(HIRES):
        told.lost.append(f"{rest}: here the pixels are enlarged, and prompts, model and sampler stay the same.")
    return {name: value for name, value in found.items() if value is not None}


def _stepped(second: dict[str, Any], steps: int | None) -> dict[str, Any]:
    """Of a second pass, the steps of the whole path: the web UI counts those that are walked, the first pass's if none
    are written."""
    walked, strength = second.get("hires_steps") or steps, second.get("hires_strength")
    if not second or not walked or not strength:
        return second
    return second | {"hires_steps": int(walked / min(strength, 0.999))}


def _inputs(told: Pairs) -> dict[str, str]:
    """What the picture was made from."""
    if not 0 < _float(told.left.get("Denoising strength", ""), 0.0) <= 1:
        return {}
    shown = told.take("Init image hash")
    found = {"init": f"a picture of hash {shown}" if shown else "a picture whose name was not written down"}
    if mask := told.matching(r"Mask |Masked |Inpaint |Conditional mask|Inpainting "):
        told.lost.append(f"{mask}: a mask is laid as it is, over the whole picture.")
        found["mask"] = "a mask that was not written down"
    return found


def _fields(told: Pairs, inputs: Mapping[str, str]) -> dict[str, Any]:
    steps, seed = told.number("Steps", int), told.number("Seed", int)
    found: dict[str, Any] = {"steps": steps, "guidance_scale": told.number("CFG scale", float)}
    found["seed"] = None if seed is None else seed % SEEDS
    if size := re.fullmatch(r"(\d{1,6})\s*x\s*(\d{1,6})", told.take("Size")):
        found |= {"width": int(size[1]), "height": int(size[2])}
    sampler, combined = names.split(told.take("Sampler"))
    kind = told.take("Schedule type") or combined or told.take("Sampler sigma")
    found |= _walk(sampler, kind, steps, told)
    strength = told.number("Denoising strength", float)
    found["strength"] = strength if inputs else None
    return {name: value for name, value in found.items() if value is not None}


def _walk(sampler: str, kind: str, steps: int | None, told: Pairs) -> dict[str, str]:
    """The sampler and the spacing, by our names. DDIM and PLMS count timesteps in a way of their own."""
    if not sampler or sampler == "Default":
        told.lost.append("sampler: none was written down; the model's default is taken.")
        return {}
    usual = names.habit(sampler)
    if usual == "ddim" or kind.lower() in ("automatic", "default"):
        kind = usual
    found = names.sampler(sampler), names.spacing(kind or "automatic", steps)
    told.lost += [sentence for _, sentence in found if sentence]
    return {"sampler": found[0][0], "spacing": found[1][0]}


def _options(told: Pairs) -> dict[str, Any]:
    skip, eta = told.number("Clip skip", int), told.number("Eta", float)
    rescale = told.number("CFG rescale", float)
    found: dict[str, Any] = {"profile": "a1111"}
    found |= {"clip_skip": skip} if skip is not None and skip > 1 else {}
    found |= {"eta": eta} if eta is not None else {}
    return found | ({"guidance_rescale": rescale} if rescale else {})


def _noise(told: Pairs, fields: Mapping[str, Any]) -> None:
    """Where noise came from, which on graphics cards is no generator that there is here."""
    source = told.take("RNG") or "GPU"
    if source.upper() != "CPU":
        told.lost.append(
            f"RNG: {source}: the noise was drawn as graphics cards draw it, here it is drawn on the CPU: "
            "with the same seed the picture is another one of its kind."
        )
    delta = told.take("ENSD")
    if delta not in ("", "0") and fields.get("sampler") in names.DRAWING:
        told.lost.append(f"ENSD: {delta}: the noise of the steps has no seed of its own here.")


REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        r"ControlNet": "ControlNet units are not run here from a file's text",
        r"ADetailer|Face restoration|FaceDetailer|GFPGAN|CodeFormer|ReActor|Postprocess|Upscale|Ultimate SD": (
            "what was done to the finished picture is not done here"
        ),
        r"Refiner": "no second model takes over; the first walks the whole path",
        r"Variation seed|Seed resize|Subseed": "noise of two seeds is not mixed here; the first alone is drawn",
        r"Token merging|ToMe|HyperTile|Hypertile": "parts of the picture are not merged to save time",
        r"NGMS|Skip Early CFG|CFG end|Image CFG|Distilled CFG|Dynamic thresholding|DynThres|PAG |SEG |Mimic": (
            "this way to guide has no equivalent here"
        ),
        r"VAE": "the model's own autoencoder is used",
        r"TI\b|Embeddings": "words that were learned apart from the model are not known to it",
        r"Hypernet": "hypernetworks are not read here",
        r"AddNet|LoRA networks": "networks that an extension loads are not read here",
        r"Sigma |Schedule (max|min|rho)|Discard penultimate|Sampler |Scheduler|Eta DDIM|Noise multiplier|Extra noise": (
            "this knob of the walk has no equivalent here"
        ),
        r"Tiling": "edges are not made to meet",
        r"FP8|Diffusion in Low Bits|Cache FP16|Precision|Downcast|Module ": "weights and numbers are the model's own",
        r"Script|[XYZ] (Type|Values)|Fixed [XYZ]": "a script made several pictures; this one alone is made",
        r"Old prompt editing|Emphasis|Parser|Pad conds": "prompts are read as version 1.10 of the web UI reads them",
    }
)
SILENT: Final = (  # says nothing of how the picture looks, or is said already
    r"Lora hashes|User$|Created Date|Batch (size|pos)|Operations?$|Backend$|Init image (hash|size)|Resize (mode|scale)"
    r"|Civitai metadata|Time$"
)
PLAIN: Final = r"Emphasis: Original$|Parser: (a1111|A1111)|Tiling: False"  # that change nothing


def _rest(told: Pairs) -> None:
    """Everything that nobody took, in as few sentences as there are reasons."""
    told.matching(SILENT)
    _resources(told)
    for name in [name for name, value in told.left.items() if re.match(PLAIN, f"{name}: {value}")]:
        told.take(name)
    for pattern, reason in REASONS.items():
        if found := told.matching(pattern):
            told.lost.append(f"{found}: {reason}.")
    if found := told.matching(""):
        told.lost.append(f"{found}: not understood here.")


def _resources(told: Pairs) -> None:
    """Embeddings in `Hashes`; the rest of it names what is named elsewhere."""
    try:
        hashes = json.loads(told.take("Hashes") or "{}")
    except (ValueError, RecursionError):
        return
    listed = hashes if isinstance(hashes, dict) else {}
    embeddings = [name.removeprefix("embed:") for name in listed if name.startswith("embed:")]
    if embeddings:
        told.left["Embeddings"] = ", ".join(embeddings)
