"""What a host's properties mean: which of them are what the project has a name for, and what the others are called."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from triptych.types import AXES, PLAIN, Medium

__all__ = ["files_of", "is_file", "meanings", "seconds"]

Schema = Mapping[str, Any]
RESERVED = {*PLAIN, *AXES, "prompt", "model", "inputs", "options", "reference", "init", "mask", "last_frame", "audio"}
SECONDS = re.compile(r"(\d+(?:\.\d+)?)s?")
LINKS = re.compile(
    r"lora|webhook|weights|model|checkpoint|embedding|config|website|callback"
)  # of what is no file here
START = ("init_image_url", "init_image", "start_image_url", "start_image", "first_frame_url", "first_frame_image")
END = ("end_image_url", "end_image", "tail_image_url", "tail_image", "last_image_url", "last_image")
NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "prompt": ("prompt", "text_prompt", "text"),
        "negative_prompt": ("negative_prompt",),
        "seed": ("seed",),
        "steps": ("num_inference_steps", "steps", "inference_steps", "num_steps", "sample_steps"),
        "guidance_scale": ("guidance_scale", "guidance", "cfg_scale", "cfg", "sample_guide_scale"),
        "count": ("num_images", "num_outputs", "number_of_images", "num_samples", "n"),
        "init": ("image_url", "image", "input_image", "input_image_url", "first_frame", *START),
        "strength": ("strength", "prompt_strength"),
        "mask": ("mask_url", "mask", "mask_image_url", "mask_image"),
        "last_frame": ("last_frame_url", "last_frame_image", "last_frame", *END),
        "reference": (
            "image_urls",
            "images",
            "input_images",
            "image_input",
            "reference_image_urls",
            "reference_images",
        ),
        "audio": ("generate_audio", "enable_audio"),
        "duration": ("duration", "duration_seconds", "seconds_total", "seconds"),
        "sampler": ("sampler",),
    }
)
SOUND = ("audio_url", "input_audio", "init_audio", "audio")  # the init of what makes sounds


def meanings(properties: Mapping[str, Schema], media: Medium) -> dict[str, str]:
    """Our name of each property: the project's where it means the same, else its own; host_NAME where that is ours."""
    found: dict[str, str] = {}
    for ours, hosts in NAMES.items():
        for host in SOUND if ours == "init" and media == "audio" else hosts:
            if host in properties and _fits(ours, host, properties[host]):
                found[host] = ours
                break
    if "init" not in found.values():
        found = {host: ours for host, ours in found.items() if ours != "strength"}
    taken = RESERVED | set(found.values())
    return {host: found.get(host) or (f"host_{host}" if host in taken else host) for host in properties}


def is_file(host: str, schema: Schema) -> bool:
    """Whether a property is one file, by its format or else by its name."""
    if schema.get("type") != "string" or "enum" in schema or LINKS.search(host):
        return False
    known = {*NAMES["init"], *NAMES["mask"], *NAMES["last_frame"], *SOUND}
    return schema.get("format") == "uri" or host.endswith(("_url", "_uri")) or host in known


def files_of(host: str, schema: Schema) -> bool:
    """Whether a property is a list of files."""
    items = schema.get("items")
    if schema.get("type") != "array" or not isinstance(items, Mapping) or items.get("type", "string") != "string":
        return False
    named = host.endswith(("_urls", "_uris")) or host in NAMES["reference"]
    return "enum" not in items and not LINKS.search(host) and (named or items.get("format") == "uri")


def seconds(schema: Schema) -> dict[float, Any]:
    """What the host says for each number of seconds that it offers; {} where it offers a range, or none."""
    told = ((_second(one), one) for one in schema.get("enum", ()))
    return {second: one for second, one in told if second is not None}


def _second(told: Any) -> float | None:
    if isinstance(told, str):
        found = SECONDS.fullmatch(told)
        return None if found is None else float(found[1])
    return float(told) if isinstance(told, int | float) and not isinstance(told, bool) else None


def _fits(ours: str, host: str, schema: Schema) -> bool:
    """Whether a property of such a name can be what the project means by its own."""
    kind = schema.get("type")
    match ours:
        case "init" | "mask" | "last_frame":
            return is_file(host, schema)
        case "reference":
            return files_of(host, schema)
        case "duration":
            offered, default = seconds(schema), _second(schema.get("default"))
            return default is not None and (default in offered if "enum" in schema else kind in ("integer", "number"))
        case "audio":
            return kind == "boolean"
        case "seed" | "count" | "steps":
            return kind == "integer"
        case "guidance_scale" | "strength":
            return kind in ("integer", "number")
    return kind == "string"
