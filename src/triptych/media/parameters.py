"""A recipe as AUTOMATIC1111's `parameters` text, which most galleries and prompt readers understand."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["parameters"]

SAMPLERS = {
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "heun": "Heun",
    "dpm2": "DPM2",
    "dpm2_ancestral": "DPM2 a",
    "dpmpp_2s_ancestral": "DPM++ 2S a",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_3m_sde": "DPM++ 3M SDE",
    "unipc": "UniPC",
    "lms": "LMS",
    "ddim": "DDIM",
    "lcm": "LCM",
    "pndm": "PLMS",
}
SPACINGS = {
    "uniform": "Uniform",
    "karras": "Karras",
    "exponential": "Exponential",
    "sgm_uniform": "SGM Uniform",
    "beta": "Beta",
}


def parameters(recipe: Mapping[str, Any]) -> str:
    """Prompt, negative prompt, and one line of `Key: value` pairs."""
    request = recipe["request"]
    lines = [request["prompt"]]
    if request.get("negative_prompt"):
        lines.append(f"Negative prompt: {request['negative_prompt']}")
    pairs = [f"{name}: {_quoted(str(value))}" for name, value in _values(recipe).items() if value is not None]
    text = "\n".join([*lines, ", ".join(pairs)])
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _values(recipe: Mapping[str, Any]) -> dict[str, Any]:
    request = recipe["request"]
    sampler, spacing = request.get("sampler"), request.get("spacing")
    width, height = request.get("width"), request.get("height")
    hashes = list(recipe["model"].get("weights", {}).values())
    return {
        "Steps": request.get("steps"),
        "Sampler": SAMPLERS.get(sampler, sampler),
        "Schedule type": SPACINGS.get(spacing, spacing),
        "CFG scale": _short(request.get("guidance_scale")),
        "Seed": request.get("seed"),
        "Size": f"{width}x{height}" if width and height else None,
        "Model hash": hashes[0][:10] if hashes else None,
        "Model": recipe["model"]["name"],
        "Denoising strength": _short(request.get("strength")) if recipe.get("inputs") else None,
        "Version": f"triptych {recipe['versions']['triptych']}",
    }


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ",:\n") else value
