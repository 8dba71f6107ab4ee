"""Descriptions of models in the form in which fal, Replicate and the Hub give them, made for these tests."""

from typing import Any

SIZE = {
    "title": "ImageSize",
    "type": "object",
    "properties": {
        "height": {"type": "integer", "maximum": 14142, "exclusiveMinimum": 0, "default": 512},
        "width": {"type": "integer", "maximum": 14142, "exclusiveMinimum": 0, "default": 512},
    },
}
PRESETS = ["square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"]
FILE = {"type": "object", "properties": {"url": {"type": "string"}, "content_type": {"type": "string"}}}


def size(default: Any, *more: str) -> dict[str, Any]:
    choices = [{"$ref": "#/components/schemas/ImageSize"}, {"type": "string", "enum": [*PRESETS, *more]}]
    return {"anyOf": choices, "title": "Image Size", "default": default}


FLUX: dict[str, Any] = {  # as fal-ai/flux/dev is described
    "prompt": {"type": "string", "description": "The prompt to generate an image from."},
    "image_size": size("landscape_4_3"),
    "num_inference_steps": {"type": "integer", "minimum": 1, "maximum": 50, "default": 28},
    "seed": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    "guidance_scale": {"type": "number", "minimum": 1, "maximum": 20, "default": 3.5},
    "sync_mode": {"type": "boolean", "default": False},
    "num_images": {"type": "integer", "minimum": 1, "maximum": 4, "default": 1},
    "enable_safety_checker": {"type": "boolean", "default": True},
    "output_format": {"type": "string", "enum": ["jpeg", "png"], "default": "jpeg"},
    "acceleration": {"type": "string", "enum": ["none", "regular", "high"], "default": "none"},
    "loras": {
        "type": "array",
        "items": {"$ref": "#/components/schemas/LoraWeight"},
        "maxItems": 2,
        "default": [],
    },
}
LORA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "scale": {"type": "number", "minimum": 0, "maximum": 4, "default": 1}},
    "required": ["path"],
}
CLIP: dict[str, Any] = {  # as an image-to-video model is described
    "prompt": {"type": "string"},
    "image_url": {"type": "string"},
    "tail_image_url": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "duration": {"type": "string", "enum": ["5", "10"], "default": "5"},
    "negative_prompt": {"type": "string", "maxLength": 2500, "default": "blur"},
    "cfg_scale": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5},
    "generate_audio": {"type": "boolean", "default": True},
}


def fal(
    id: str,
    properties: dict[str, Any],
    output: dict[str, Any] | None = None,
    category: str = "text-to-image",
    required: tuple[str, ...] = ("prompt",),
) -> dict[str, Any]:
    """What fal.ai/api/openapi/queue/openapi.json answers."""
    held = {"images": {"type": "array", "items": {"$ref": "#/components/schemas/Image"}}} if output is None else output

    def said(name: str) -> dict[str, Any]:
        return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}}

    return {
        "openapi": "3.0.4",
        "info": {"title": id, "x-fal-metadata": {"endpointId": id, "category": category}},
        "components": {
            "schemas": {
                "QueueStatus": {"type": "object"},
                "TheInput": {"type": "object", "properties": properties, "required": list(required)},
                "TheOutput": {"type": "object", "properties": held},
                "ImageSize": SIZE,
                "LoraWeight": LORA,
                "Image": FILE,
            }
        },
        "paths": {
            f"/{id}/requests/{{request_id}}/status": {"get": {"responses": {"200": said("QueueStatus")}}},
            f"/{id}/requests/{{request_id}}/cancel": {"put": {}},
            f"/{id}": {"post": {"requestBody": said("TheInput"), "responses": {"200": said("QueueStatus")}}},
            f"/{id}/requests/{{request_id}}": {"get": {"responses": {"200": said("TheOutput")}}},
        },
    }


SCHNELL: dict[str, Any] = {  # as Cog describes a model: choices are references
    "seed": {"type": "integer", "title": "Seed", "x-order": 3},
    "image": {"type": "string", "format": "uri", "x-order": 7},
    "prompt": {"type": "string", "title": "Prompt", "x-order": 0},
    "num_outputs": {"type": "integer", "minimum": 1, "maximum": 4, "default": 1, "x-order": 2},
    "aspect_ratio": {"allOf": [{"$ref": "#/components/schemas/aspect_ratio"}], "default": "1:1", "x-order": 1},
    "output_format": {"allOf": [{"$ref": "#/components/schemas/output_format"}], "default": "webp", "x-order": 4},
    "prompt_strength": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.8, "x-order": 8},
    "guidance": {"type": "number", "minimum": 0, "maximum": 10, "default": 3, "x-order": 5},
    "go_fast": {"type": "boolean", "default": True, "x-order": 6},
}
CHOICES = {
    "aspect_ratio": {"enum": ["1:1", "16:9", "9:16", "3:2"], "type": "string", "title": "aspect_ratio"},
    "output_format": {"enum": ["webp", "jpg", "png"], "type": "string", "title": "output_format"},
}


def cog(properties: dict[str, Any], required: tuple[str, ...] = ("prompt",)) -> dict[str, Any]:
    kinds = {"Input": {"type": "object", "properties": properties, "required": list(required)}, **CHOICES}
    output = {"type": "array", "items": {"type": "string", "format": "uri"}}
    return {"openapi": "3.0.2", "components": {"schemas": {**kinds, "Output": output}}}


def replicate(properties: dict[str, Any], example: Any = None, **more: Any) -> dict[str, Any]:
    """What GET /v1/models/owner/name answers."""
    return {
        "owner": "black-forest-labs",
        "name": "flux-schnell",
        "description": "The fastest one",
        "license_url": "https://example.com/license",
        "is_official": True,
        "default_example": {"output": example} if example else None,
        "latest_version": {"id": "c846a69991daf4c0e5d016514849d14ee5b2e6846ce6b9d6f21369e564cfe51e"}
        | {"openapi_schema": cog(properties)},
        **more,
    }


def hub(task: str = "text-to-image", **providers: dict[str, Any]) -> dict[str, Any]:
    """What GET /api/models/owner/name?expand=... answers."""
    offered = {
        name.replace("_", "-"): {"status": "live", "providerId": "p/m", "task": task, **one}
        for name, one in providers.items()
    }
    return {"id": "o/n", "pipeline_tag": task, "tags": ["license:apache-2.0"], "inferenceProviderMapping": offered}
