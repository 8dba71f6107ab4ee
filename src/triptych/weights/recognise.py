"""What lies at a place: which family, which parts, which kind of prediction. Told by names, shapes and configurations.

Nothing is guessed in silence: where names and shapes leave several families, all of them are said; what only a text
beside the tensors tells is marked as told by it; and what fits no known network is an error that says what is near.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from triptych.errors import WeightsError
from triptych.weights import networks
from triptych.weights.adapters import CONTROL, Adapter, adapter, claimed
from triptych.weights.files import Bundle
from triptych.weights.header import Entry
from triptych.weights.networks import Part

__all__ = ["Found", "parts", "recognise", "training"]

MAIN = ("unet", "transformer", "control", "ip-adapter", "motion")  # what names the family, the first that is there
VARIANTS = {4: "", 9: "inpainting", 8: "instruct-pix2pix", 5: "depth"}  # by channels that a U-Net takes
SIZES = {1536: "medium", 2432: "large"}  # by the width of a transformer of Stable Diffusion 3
PATCHES = ("x_embedder.proj.weight", "pos_embed.proj.weight", "pos_embed_input.proj.weight")  # how wide it is
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "v": "v", "sample": "x_0", "flow_prediction": "flow"}
SCALES = {0.18215: ("sd15", "sd2"), 0.13025: ("sdxl", "sdxl-refiner")}  # of latents, in a VAE's configuration
WORDS = {768: ("sd15",), 1024: ("sd2",), 1280: ("sdxl",)}  # how wide a textual inversion is

PLAIN, TAKING_IN = 64, {384: "fill", 128: "structure"}  # channels of patches that FLUX.1 takes, of x_t alone and more
GUIDED = ("guidance_in.", "time_text_embed.guidance_embedder.")
KONTEXT = re.compile("kontext", re.IGNORECASE)

# Tensors of no network that training left behind, or that mark something.
BUFFERS = re.compile(
    r"(model_ema\.)?(.*betas|.*alphas_cumprod.*|posterior_.*|logvar|lvlb_weights|scale_factor|denoiser\.sigmas|decay"
    r"|num_updates|v_pred|ztsnr|edm_.*|(cond_stage_model|text_encoders\.\w+)\.logit_scale|sqrt_.*|log_.*|.*__index_timestep_zero__)"
)
QUANTISED = re.compile(
    r"bitsandbytes__|(\.absmax|\.quant_map|scaled_fp8|\.scale_weight|\.weight_scale(_2|_inv)?|\.comfy_quant|\.qweight)$"
)
MOTION = re.compile(r"motion_modules|temporal|time_stack|time_mixer")  # layers along time in a U-Net for pictures
UNION = ("task_embedding", "control_add_", "controlnet_mode_embedder")  # tensors that only such a ControlNet has
FEW_STEPS = re.compile(r"turbo|lightning|hyper|lcm|dmd2|schnell", re.IGNORECASE)


@final
@dataclass(frozen=True, slots=True)
class Found:
    """What is there. families: the one that it belongs to, or all that it may belong to where nothing tells them apart.

    refusal: why it cannot be used with here and what to do, "" where it can.
    """

    where: str
    kind: str  # checkpoint, folder, lora, embedding, or the one network that it is: unet, vae, control, ...
    families: tuple[str, ...]
    naming: tuple[str, ...]
    parts: tuple[Part, ...] = ()
    missing: tuple[str, ...] = ()  # parts that the family needs
    variant: str = ""  # inpainting, instruct-pix2pix, ...; "" the plain one
    prediction: str = ""  # eps or v; "" of what predicts nothing
    told_by: str = ""  # what says so; "nothing" where eps is assumed
    zero_snr: bool = False
    adapter: Adapter | None = None
    notes: tuple[str, ...] = ()
    refusal: str = ""

    @property
    def family(self) -> str:
        """The one that it is of, "" where there are several or none."""
        return self.families[0] if len(self.families) == 1 else ""


def recognise(bundle: Bundle) -> Found:
    """Reads no tensor. Raises WeightsError where nothing is known, saying what is there and what is nearest."""
    lone = bundle.sets.get("")
    low = lone and adapter(lone.entries(), lone.metadata)
    if lone and low:
        return _low_rank(bundle, low)
    groups = _groups(bundle)
    if found := _parts(groups):
        return _model(bundle, groups, found)
    words = _words(lone.entries()) if lone else ()
    if words:
        return Found(str(bundle.where), "embedding", words, ("one vector a token",))
    raise _unknown(bundle, groups)


def parts(bundle: Bundle) -> list[Part]:
    """The known networks that are there, none where nothing is known. Reads no tensor."""
    return _parts(_groups(bundle))


Groups = Mapping[tuple[str, str], Mapping[str, Entry]]


def _parts(groups: Groups) -> list[Part]:
    return [part for (folder, prefix), group in groups.items() if (part := networks.part(group, prefix, folder))]


def _groups(bundle: Bundle) -> Groups:
    return {
        (folder, prefix): group
        for folder, tensors in bundle.sets.items()
        for prefix, group in networks.grouped(tensors.entries()).items()
    }


def _model(bundle: Bundle, groups: Groups, parts: Sequence[Part]) -> Found:
    main = next((part for name in MAIN for part in parts if part.name == name), None)
    families, notes = _families(bundle, parts, main)
    variant = _variant(main) if main else ""
    if main and main.name == "transformer" and families == ("flux",):
        variant, told = _flux(main, _said(bundle))
        notes = [*notes, *told]
    prediction, told_by = _prediction(bundle, groups) if main and main.name == "unet" else ("", "")
    needs = networks.families()[families[0]].needs if main and len(families) == 1 else ()
    missing = [name for name in needs if main and main.name in needs and name not in {part.name for part in parts}]
    return Found(
        where=str(bundle.where),
        kind=_kind(bundle, parts),
        families=families,
        naming=tuple(sorted({part.signature.naming for part in parts})),
        parts=tuple(parts),
        missing=tuple(missing),
        variant=variant,
        prediction=prediction,
        told_by=told_by,
        zero_snr=_zero_snr(bundle, groups),
        notes=(*notes, *_notes(bundle, groups, parts), *_assumed(prediction, told_by)),
        refusal=_refusal(bundle, groups, main or parts[0], families, variant),
    )


def _low_rank(bundle: Bundle, low: Adapter) -> Found:
    families, notes = low.families, []
    if len(families) > 1 and low.claimed in families:
        families = (low.claimed,)
        notes.append(f"only its metadata tell that it is for {_title(low.claimed)}")
    elif low.claimed and low.claimed not in families:
        notes.append(f"its metadata say {_title(low.claimed)}, its tensors do not")
    if low.strange:
        notes.append(f"{len(low.strange)} tensors play no part of a low-rank change: {_some(low.strange)}")
    if low.control:
        notes.append(CONTROL)
    if not families:
        notes.append("what it changes tells no family")
    known = [networks.families()[name] for name in families]
    refused = next((family for family in known if family.refusal and len(known) == 1), None)
    return Found(
        where=str(bundle.where),
        kind="lora",
        families=families,
        naming=(low.layout,),
        adapter=low,
        notes=tuple(notes),
        refusal=f"{refused.title} {refused.refusal}." if refused else "",
    )


def _kind(bundle: Bundle, parts: Sequence[Part]) -> str:
    if "" not in bundle.sets:
        return "folder"
    return "checkpoint" if len(parts) > 1 else parts[0].name


def _families(bundle: Bundle, parts: Sequence[Part], main: Part | None) -> tuple[tuple[str, ...], list[str]]:
    """The main network's, or those that all parts may belong to, narrowed by what is written beside them."""
    notes: list[str] = []
    if main is not None:
        own = main.signature.families
        foreign = [part.name for part in parts if not set(own) & set(part.signature.families)]
        if foreign:
            notes.append(f"of another family than its {main.name}: {', '.join(foreign)}")
        return own, notes
    left = [name for name in parts[0].signature.families if all(name in part.signature.families for part in parts)]
    written = _written(bundle)
    narrowed = [name for name in left if name in written]
    if len(left) > 1 and narrowed:
        notes.append(f"the tensors fit {_titles(left)}; what is written beside them tells which")
    elif len(left) > 1:
        notes.append(f"the tensors fit {_titles(left)}, and nothing tells which")
    return tuple(narrowed or left), notes


def _written(bundle: Bundle) -> tuple[str, ...]:
    """Families that a configuration or the metadata tell."""
    claims = [claimed(tensors.metadata) for tensors in bundle.sets.values()]
    scales = [config.get("scaling_factor") for config in bundle.configs.values()]
    by_scale = [SCALES[scale] for scale in scales if isinstance(scale, float) and scale in SCALES]
    return tuple(filter(None, claims)) or tuple(name for names in by_scale for name in names)


def _variant(main: Part) -> str:
    first = main.entries.get("input_blocks.0.0.weight") or main.entries.get("conv_in.weight")
    if main.name == "control" and any(name.startswith(UNION) for name in main.entries):
        return "union"
    if {"sd3", "sd3.5"} & set(main.signature.families):
        return _size(main)
    if main.name != "unet" or first is None:
        return ""
    if "time_embedding.cond_proj.weight" in main.entries:
        return "lcm"
    if any(MOTION.search(name) for name in main.entries):
        return "motion"
    channels = first.shape[1]
    return VARIANTS.get(channels, f"{channels} input channels")


def _flux(main: Part, said: str) -> tuple[str, list[str]]:
    """Which FLUX.1 it is, by what it takes in, and what of that no tensor tells; said: names beside the tensors."""
    first = main.entries.get("img_in.weight") or main.entries.get("x_embedder.weight")
    channels = first.shape[1] if first else PLAIN
    if channels != PLAIN:
        return TAKING_IN.get(channels, f"{channels} input channels"), []
    if not any(name.startswith(GUIDED) for name in main.entries):
        return "schnell", []
    if KONTEXT.search(said):
        return "kontext", ["only its name or title says Kontext: its tensors are like those of dev"]
    return "dev", ["tensors do not tell dev from Kontext, whose name would say so; dev is assumed"]


def _said(bundle: Bundle) -> str:
    """What it is called, by its file or folder, by its metadata and by diffusers' name of what it is for."""
    titles = [tensors.metadata.get("modelspec.title", "") for tensors in bundle.sets.values()]
    return " ".join([bundle.where.name, *titles, str(bundle.configs.get("", {}).get("_class_name", ""))])


def _size(main: Part) -> str:
    """What a transformer of Stable Diffusion 3 is called by its width, or the one that a ControlNet belongs beside."""
    widths = [main.entries[name].shape[0] for name in PATCHES if name in main.entries]
    return SIZES.get(widths[0], f"{widths[0]} channels wide") if widths else ""


def training(bundle: Bundle) -> tuple[str, bool]:
    """What a U-Net was trained to predict, eps, v or x_0, and whether on a table that ends in noise alone."""
    groups = _groups(bundle)
    return _prediction(bundle, groups)[0], _zero_snr(bundle, groups)


def _zero_snr(bundle: Bundle, groups: Groups) -> bool:
    return _is_marked(groups, "ztsnr") or _scheduler(bundle).get("rescale_betas_zero_snr") is True


def _prediction(bundle: Bundle, groups: Groups) -> tuple[str, str]:
    """What a U-Net predicts, and what tells it."""
    if _is_marked(groups, "v_pred"):
        return "v", "the tensor v_pred"
    written = _scheduler(bundle).get("prediction_type")
    if isinstance(written, str) and written in PREDICTIONS:
        return PREDICTIONS[written], "scheduler_config.json"
    for tensors in bundle.sets.values():
        said = tensors.metadata.get("modelspec.prediction_type", "").lower()
        if said in PREDICTIONS:
            return PREDICTIONS[said], "modelspec.prediction_type"
    return "eps", "nothing"


def _scheduler(bundle: Bundle) -> Mapping[str, object]:
    return bundle.configs.get("scheduler", {})


def _is_marked(groups: Groups, name: str) -> bool:
    return any(name in group for group in groups.values())


def _assumed(prediction: str, told_by: str) -> list[str]:
    if told_by != "nothing":
        return []
    return [f"tensors do not tell {prediction} from v where no marker lies beside them; {prediction} is assumed"]


def _notes(bundle: Bundle, groups: Groups, parts: Sequence[Part]) -> list[str]:
    notes = [
        f"{part.name}: {part.lacking} of {part.signature.tensors} tensors are missing" for part in parts if part.lacking
    ]
    for part in parts:
        own = sum(not BUFFERS.fullmatch(name) for name in part.entries)
        if part.name == "unet" and own > part.signature.tensors:
            notes.append(f"unet: {own - part.signature.tensors} tensors more than a plain one has")
    twice = [name for name, times in Counter(part.name for part in parts).items() if times > 1]
    notes += [f"{name} is there more than once; the first is taken" for name in twice]
    known = {(part.folder, part.prefix) for part in parts}
    for (folder, prefix), group in groups.items():
        strange = [prefix + name for name in group if not BUFFERS.fullmatch(prefix + name)]
        if prefix == "model_ema.":
            notes.append(
                f"a second copy of the network, its moving average, is there and not used: {len(group)} tensors"
            )
        elif (folder, prefix) not in known and strange:
            notes.append(f"{len(strange)} tensors {f'in {folder} ' if folder else ''}fit no network: {_some(strange)}")
    if found := FEW_STEPS.search(_said(bundle)):
        notes.append(
            f"its name says {found[0]!r}: if it is distilled, which no tensor tells, it wants few steps and no guidance"
        )
    return notes


def _refusal(bundle: Bundle, groups: Groups, main: Part, families: Sequence[str], variant: str) -> str:
    """Why it cannot be used, "" where it can."""
    known = [networks.families()[name] for name in families]
    if known and all(family.refusal for family in known):
        return f"{_titles(families)} {known[0].refusal}."
    if any(QUANTISED.search(name) for group in groups.values() for name in group):
        return "It is quantised in a way that is not read; take the file in half precision."
    edm = str(bundle.configs.get("scheduler", {}).get("_class_name", "")).startswith("EDM")
    if edm or any(name.startswith("edm_") for group in groups.values() for name in group):
        return "It is trained with the preconditioning of EDM (Playground 2.5, CosXL), which is not supported."
    if main.name in ("ip-adapter", "motion"):
        return f"{main.name}: files of this kind are not supported."
    if "flux" not in families and variant not in ("", "inpainting", *SIZES.values()):
        sizes = {"sd3", "sd3.5"} & set(main.signature.families)
        here = " and ".join(SIZES.values()) if sizes else "the plain one and inpainting"
        return f"The variant {variant} is not supported; {here} are."
    if main.name in ("unet", "transformer") and main.lacking:
        lacks = f"{main.lacking} of {main.signature.tensors} tensors"
        return f"Its {main.name} lacks {lacks}: a smaller relative, or half a file."
    return ""


def _words(entries: Mapping[str, Entry]) -> tuple[str, ...]:
    """The families of a textual inversion, none where it is no such file."""
    if entries and entries.keys() <= {"clip_l", "clip_g"}:
        return ("sdxl",)
    shapes = [entry.shape for entry in entries.values()]
    if len(shapes) != 1 or not 1 <= len(shapes[0]) <= 2 or (len(shapes[0]) == 2 and shapes[0][0] > 128):
        return ()
    return WORDS.get(shapes[0][-1], ())


def _unknown(bundle: Bundle, groups: Groups) -> WeightsError:
    names = [name for tensors in bundle.sets.values() for name in tensors.names()]
    tops = ", ".join(f"{top} ({times})" for top, times in Counter(name.split(".")[0] for name in names).most_common(8))
    told = f"{bundle.where} holds no network that is known. Its {len(names)} tensors begin with: {tops or 'nothing'}."
    near = networks.nearest(groups.values())
    if near is None:
        return WeightsError(f"{told} No known network shares a telling name with it.")
    signature, lacking = near
    what = f"the {signature.part} of {_titles(signature.families)} ({signature.naming} names)"
    return WeightsError(f"{told} The nearest is {what}, which would need {_some(lacking)}.")


def _title(family: str) -> str:
    return networks.families()[family].title


def _titles(families: Iterable[str]) -> str:
    return ", ".join(map(_title, families))


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f", ... {len(names) - most} more" if len(names) > most else "")
