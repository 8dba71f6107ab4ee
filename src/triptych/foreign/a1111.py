"""Pictures of AUTOMATIC1111's web UI, and of Forge and SD.Next, which write as it does."""

import json
import re
from collections.abc import Mapping
from math import isfinite
from types import MappingProxyType
from typing import Any, Final

from triptych.errors import NoRecipe
from triptych.foreign import names
from triptych.foreign.infotext import Pairs, parsed, parsed_pairs
from triptych.foreign.told import SEEDS, Foreign, Hint, Lora, short
from triptych.text import tags
from triptych.text.tags import Tag

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
    options = _options(told) | _noise(told, fields) | _stepped(second, fields.get("steps"))
    model, digest = told.take("Model"), told.take("Model hash")
    hints, refiner = _hints(told), _refiner(told, program)
    _rest(told)
    lost = tuple(dict.fromkeys(told.lost))
    return Foreign(program, prompt, negative, fields, options, model, digest, loras, inputs, lost, hints, refiner)


def _program(told: Pairs) -> str:
    version, app = told.take("Version"), told.take("App")
    told.left.pop("Pipeline", None)
    if app:
        return f"{app} {version}".strip()
    if re.match(r"f\d|.*forge", version, re.IGNORECASE):
        return f"Forge {version}"
    return f"AUTOMATIC1111's web UI {version}".strip() if version[:1] in ("", "v") else version


_AND: Final = re.compile(r"\bAND\b")
_WEIGHT: Final = re.compile(r":\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*$")


def _prompt(written: str, told: Pairs) -> tuple[str, tuple[Lora, ...]]:
    """The prompt without the names of networks in it, and those that are LoRAs."""
    prompt, named = tags.apart(written)
    loras = [_lora(tag, told) for tag in named if tag.kind in tags.LORAS]
    told.lost += [
        f"{short(str(tag))}: networks of this kind are not read here." for tag in named if tag.kind not in tags.LORAS
    ]
    first, *others = _AND.split(prompt)
    if others:
        told.lost.append("AND: prompts are not composed here; the first alone is told.")
        prompt = _WEIGHT.sub("", first)
    return prompt.strip(), tuple(loras)


def _lora(tag: Tag, told: Pairs) -> Lora:
    try:
        return Lora(tag.name, *tag.weights())
    except ValueError:
        told.lost.append(f"{short(str(tag))}: its weights are not numbers; it weighs 1.")
        return Lora(tag.name, 1.0, 1.0)


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
    found |= _walk(sampler, kind, told)
    strength = told.number("Denoising strength", float)
    found["strength"] = strength if inputs else None
    return {name: value for name, value in found.items() if value is not None}


def _walk(sampler: str, kind: str, told: Pairs) -> dict[str, str]:
    """The sampler and the spacing, by our names. DDIM and PLMS count timesteps in a way of their own."""
    if not sampler or sampler == "Default":
        told.lost.append("sampler: none was written down; the model's default is taken.")
        return {}
    usual = names.habit(sampler)
    if usual == "ddim" or kind.lower() in ("automatic", "default"):
        kind = usual
    found = names.sampler(sampler), names.spacing(kind or "automatic")
    told.lost += [sentence for _, sentence in found if sentence]
    return {"sampler": found[0][0], "spacing": found[1][0]}


def _options(told: Pairs) -> dict[str, Any]:
    skip, etas = told.number("Clip skip", int), [told.number(name, float) for name in ("Eta", "Eta DDIM")]
    eta = next((each for each in etas if each is not None), None)
    rescale = told.number("CFG rescale", float)
    found: dict[str, Any] = {"profile": "a1111"}
    found |= {"clip_skip": skip} if skip is not None and skip > 1 else {}
    found |= {"eta": eta} if eta is not None else {}
    return found | ({"guidance_rescale": rescale} if rescale else {})


CROWDED: Final = 43_008  # numbers that an RTX 3060 draws at once, the first that differ where there are more


def _noise(told: Pairs, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Where noise came from, and what its seeds are besides the first."""
    source = told.take("RNG")
    if not source and fields.get("width", 0) * fields.get("height", 0) // 16 > CROWDED:
        told.lost.append(
            "RNG: GPU: the noise of so large a picture hangs on the card that draws it; here it is that of a large one."
        )
    found: dict[str, Any] = {"noise": {"CPU": "cpu", "NV": "gpu"}.get(source.upper())}
    if source and found["noise"] is None:
        told.lost.append(f"RNG: {short(source)}: it is not known here; the noise is that of graphics cards.")
    found["noise_delta"] = told.number("ENSD", int) or None
    strength = told.number("Variation seed strength", float)
    seed = told.number("Variation seed", int)
    if strength and seed is not None:
        found |= {"variation_seed": seed % SEEDS, "variation_strength": strength}
    size = told.take("Seed resize from").replace(" ", "")
    found["noise_size"] = size if re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", size) else None
    return {name: value for name, value in found.items() if value is not None}


_UNIT: Final = re.compile(r"ControlNet(?: \d+)?$")
_HASH: Final = re.compile(r"\s*\[[0-9a-fA-F]+\]$")


def _hints(told: Pairs) -> tuple[Hint, ...]:
    """The units of ControlNet, each a list of pairs within a pair."""
    found = []
    for name in [name for name in told.left if _UNIT.match(name)]:
        said = Pairs(parsed_pairs(told.left[name].removeprefix("(").removesuffix(")")))
        net = _HASH.sub("", said.take("Model") or said.take("model"))
        if not net or net == "None":
            continue
        told.take(name)
        module = said.take("Module") or said.take("preprocessor") or "none"
        kept = {key: said.number(key, float) for key in ("Weight", "Guidance Start", "Guidance End")}
        scale, start, stop = (
            usual if value is None else value for value, usual in zip(kept.values(), (1.0, 0.0, 1.0), strict=True)
        )
        mode = said.take("Control Mode")
        if mode not in ("", "Balanced"):
            told.lost.append(f"{name}: Control Mode: {short(mode)}: prompt and hint are balanced here.")
        if (start, stop) != (0, 1):
            told.lost.append(f"{name}: it acts between shares of the steps there, here of the path.")
        what = f"what the preprocessor {short(module)} made of a picture" if module.lower() != "none" else "a picture"
        found.append(Hint(net, f"{what} that was not written down", scale, start, stop))
    return tuple(found)


def _refiner(told: Pairs, program: str) -> tuple[str, float] | None:
    """What takes over: from 1.10 on at a timestep, before that and on request at a step."""
    name, start = _HASH.sub("", told.take("Refiner")), told.number("Refiner switch at", float)
    by_steps = told.take("Refiner switch by sampling steps") or re.search(r"\bv1\.[0-9]\b", program)
    if not name or start is None:
        return None
    if by_steps:
        told.lost.append(f"Refiner: it took over after a share of {start:g} of the steps, here of the path.")
    return name, start


REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        r"ControlNet": "a unit that names no ControlNet is not run here",
        r"ADetailer|Face restoration|FaceDetailer|GFPGAN|CodeFormer|ReActor|Postprocess|Upscale|Ultimate SD": (
            "what was done to the finished picture is not done here"
        ),
        r"Variation seed|Seed resize|Subseed": "it is not said in full; the noise is that of the first seed alone",
        r"Token merging|ToMe|HyperTile|Hypertile": "parts of the picture are not merged to save time",
        r"NGMS|Skip Early CFG|CFG end|Image CFG|Distilled CFG|Dynamic thresholding|DynThres|PAG |SEG |Mimic": (
            "this way to guide has no equivalent here"
        ),
        r"VAE": "the model's own autoencoder is used",
        r"TI\b|Embeddings": "words that were learned apart from the model are not known to it",
        r"Hypernet": "hypernetworks are not read here",
        r"AddNet|LoRA networks": "networks that an extension loads are not read here",
        r"Sigma |(Schedule|Beta schedule) |Discard penultimate|Sampler |Scheduler|Noise multiplier|Extra noise": (
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
PLAIN: Final = (
    r"Emphasis: Original$|Beta schedule (alpha|beta): 0\.6$|Parser: (a1111|A1111)|Tiling: False"  # that change nothing
)


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
