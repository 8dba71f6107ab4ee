"""What fal-client 1.0.3, replicate 1.0.7 and huggingface_hub 2.4.0 send, each into the file of its vendor beside this.

Run by hand, in an environment of its own:

    python -m venv /tmp/sdk-hosts
    /tmp/sdk-hosts/bin/pip install fal-client==1.0.3 replicate==1.0.7 huggingface_hub==2.4.0 pillow
    /tmp/sdk-hosts/bin/python tests/providers/captures/record_hosts.py

All hosts are one recorder on this machine: addresses that the packages fix are patched, and nothing else.
"""

import base64
import io
import json
import threading
from collections.abc import Callable
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fal_client
import replicate
from huggingface_hub import InferenceClient, constants
from huggingface_hub.hf_api import InferenceProviderMapping
from huggingface_hub.inference._providers import (
    _common,
    fal_ai,
    hf_inference,
    together,
    wavespeed,
    zai_org,
)
from PIL import Image

SEEN: list[dict[str, Any]] = []
TOLD: dict[str, Any] = {}  # answers, by what a path holds; the first that fits
USUAL = ("host", "accept", "accept-encoding", "connection", "content-length", "user-agent")


class Recorder(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        kind = self.headers.get("content-type", "")
        names = sorted(name.lower() for name in self.headers if name.lower() not in USUAL)
        one: dict[str, Any] = {"method": self.command, "path": self.path, "headers": names}
        if "accept" in self.headers:
            one["accept"] = self.headers["accept"]
        if "multipart" in kind:
            parts = message_from_bytes(f"content-type: {kind}\r\n\r\n".encode() + body).get_payload()
            one["parts"] = [part.get_param("name", header="content-disposition") for part in parts]
        elif body and "json" in kind:
            one["json"] = short(json.loads(body))
        elif body:
            one["bytes"] = len(body)
        SEEN.append(one)
        told = next((answer for part, answer in TOLD.items() if part in self.path), {})
        data = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-type", "image/png" if isinstance(told, bytes) else "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST  # noqa: N815 -- as the library wants them named


def short(told: Any) -> Any:
    """Without the bytes of files."""
    if isinstance(told, dict):
        return {name: short(one) for name, one in told.items()}
    if isinstance(told, list):
        return [short(one) for one in told]
    if isinstance(told, str) and told.startswith("data:"):
        return f"{told.partition(',')[0]},[base64]"
    return "[base64]" if isinstance(told, str) and len(told) > 100 else told


def record(cases: list[dict[str, Any]], case: str, call: Callable[[], Any], **answers: Any) -> None:
    SEEN.clear()
    TOLD.clear()
    TOLD.update({"signed": PNG, **answers})
    call()
    cases.append({"case": case, "requests": [one for one in SEEN if "signed" not in one["path"]]})


def save(name: str, package: str, cases: list[dict[str, Any]]) -> None:
    told = {"sdk": f"{package} {version(package)}", "cases": cases}
    Path(__file__).with_name(f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")


server = HTTPServer(("127.0.0.1", 0), Recorder)
threading.Thread(target=server.serve_forever, daemon=True).start()
HERE = f"http://127.0.0.1:{server.server_port}"
buffer = io.BytesIO()
Image.new("RGB", (8, 8), (200, 30, 30)).save(buffer, "PNG")
PNG = buffer.getvalue()
LINK = f"{HERE}/signed/a.png"


def of_fal() -> list[dict[str, Any]]:
    fal_client.client.QUEUE_URL_FORMAT = f"{HERE}/"
    fal_client.client.REST_URL = fal_client.client.CDN_URL = HERE
    client = fal_client.SyncClient(key="k:s")
    cases: list[dict[str, Any]] = []
    job = f"{HERE}/fal-ai/flux/requests/r1"
    taken = {"request_id": "r1", "response_url": job, "status_url": f"{job}/status", "cancel_url": f"{job}/cancel"}
    answers = {"/status": {"status": "COMPLETED", "logs": None}, "requests/r1": {}, "flux/dev": taken}
    said = {"prompt": "a cat", "seed": 7, "num_inference_steps": 20, "image_size": {"width": 512, "height": 768}}
    record(cases, "submit", lambda: client.submit("fal-ai/flux/dev", said), **answers)
    record(cases, "get", lambda: client.submit("fal-ai/flux/dev", said).get(), **answers)
    record(cases, "cancel", lambda: client.submit("fal-ai/flux/dev", said).cancel(), **answers)
    later = {"priority": "low", "start_timeout": 30}
    record(cases, "submit low", lambda: client.submit("fal-ai/flux/dev", said, **later), **answers)
    token = {"token": "t", "token_type": "Bearer", "base_url": HERE, "expires_at": "2099-01-01T00:00:00+00:00"}
    place = {"storage/auth": token, "files/upload": {"access_url": LINK}}
    record(cases, "upload", lambda: client.upload(PNG, "image/png"), **place)
    return cases


def of_replicate() -> list[dict[str, Any]]:
    client = replicate.Client(api_token="r8_k", base_url=HERE)
    cases: list[dict[str, Any]] = []
    made = {
        "id": "p1",
        "model": "o/n",
        "version": "v1",
        "status": "starting",
        "input": {},
        "urls": {"get": f"{HERE}/v1/predictions/p1", "cancel": f"{HERE}/v1/predictions/p1/cancel"},
    }
    done = {**made, "status": "succeeded", "output": [LINK]}
    said = {"prompt": "a cat", "seed": 7, "num_outputs": 2}
    model = {"model": "black-forest-labs/flux-schnell", "input": said}
    answers = {"predictions/p1": done, "predictions": made}
    record(cases, "model", lambda: client.predictions.create(**model), **answers)
    record(cases, "model wait", lambda: client.models.predictions.create(**model, wait=30), **answers)
    record(cases, "version", lambda: client.predictions.create(version="abc123", input=said), **answers)
    record(cases, "get", lambda: client.predictions.get("p1"), **answers)
    record(cases, "cancel", lambda: client.predictions.cancel("p1"), **answers)
    uploaded = {"id": "f1", "name": "file", "content_type": "image/png", "size": 9, "etag": "e", "checksums": {}}
    uploaded |= {"metadata": {}, "created_at": "now", "expires_at": None, "urls": {"get": LINK}}
    record(cases, "file", lambda: client.files.create(io.BytesIO(PNG)), **{"v1/files": uploaded})
    shown = {"url": "u", "owner": "o", "name": "n", "description": None, "visibility": "public", "run_count": 1}
    shown |= dict.fromkeys(("github_url", "paper_url", "license_url", "cover_image_url", "default_example"))
    record(cases, "described", lambda: client.models.get("o/n"), **{"models/o/n": {**shown, "latest_version": None}})
    return cases


TASKS = {
    "text_to_image": {"prompt": "a cat", "negative_prompt": "b", "width": 512, "height": 768}
    | {"num_inference_steps": 4, "guidance_scale": 3.5, "seed": 7},
    "image_to_image": {"image": PNG, "prompt": "a cat", "num_inference_steps": 4, "guidance_scale": 3.5},
    "text_to_video": {"prompt": "a cat", "num_inference_steps": 4, "num_frames": 16, "seed": 7},
    "image_to_video": {"image": PNG, "prompt": "a cat", "num_inference_steps": 4, "seed": 7},
}
OFFERED = {
    "hf-inference": ("text_to_image", "image_to_image"),
    "fal-ai": tuple(TASKS),
    "replicate": ("text_to_image", "image_to_image", "text_to_video"),
    "together": tuple(TASKS),
    "nscale": ("text_to_image",),
    "novita": ("text_to_video",),
    "wavespeed": tuple(TASKS),
    "zai-org": ("text_to_image",),
}


def answers_of(provider: str, task: str) -> dict[str, Any]:
    """What the provider's package wants to hear so that it goes to the end."""
    base64ed = {"data": [{"b64_json": base64.b64encode(PNG).decode()}]}
    media = {"images": [{"url": LINK}], "video": {"url": LINK, "video_url": LINK}}
    match provider:
        case "hf-inference":
            return {"models": PNG}
        case "fal-ai":
            job = {"request_id": "r1", "status": "IN_QUEUE", "response_url": f"{HERE}/fal-ai/m/requests/r1"}
            queue = {"/status": {"status": "COMPLETED"}, "requests/r1": media, "fal-ai": job}
            return {"fal-ai": media} if task == "text_to_image" else queue
        case "replicate":
            return {"predictions": {"id": "p1", "status": "succeeded", "output": [LINK]}}
        case "together":
            video = {"id": "v1", "status": "completed", "outputs": {"video_url": LINK}}
            return {"v2/videos/v1": video, "v2/videos": {"id": "v1", "status": "queued"}, "images": base64ed}
        case "wavespeed":
            job = {"urls": {"get": f"{HERE}/api/v3/predictions/w1/result"}}
            return {"result": {"data": {"status": "completed", "outputs": [LINK]}}, "api": {"data": job}}
        case "zai-org":
            done = {"id": "z1", "task_status": "SUCCESS", "image_result": [{"url": LINK}]}
            return {"async-result": done, "zai-org": {"id": "z1", "task_status": "PROCESSING"}}
    return {"images/generations": base64ed, "v3/hf": media}


def of_hub() -> list[dict[str, Any]]:
    constants.INFERENCE_PROXY_TEMPLATE = HERE + "/{provider}"
    hf_inference._check_supported_task = lambda model, task: None
    fal_ai._POLLING_INTERVAL = wavespeed._POLLING_INTERVAL = zai_org._POLLING_INTERVAL = 0
    together._VIDEO_POLLING_INTERVAL = 0
    fal_ai.urlparse = routed("fal-ai")
    wavespeed.urlparse = routed("wavespeed")
    for task in ("text-to-image", "image-to-image"):
        helper = _providers()["hf-inference"][task]
        helper.base_url = f"{HERE}/hf-inference"
    cases: list[dict[str, Any]] = []
    for provider, tasks in OFFERED.items():
        for task in tasks:
            mapping = InferenceProviderMapping(
                provider=provider,
                hf_model_id="o/n",
                providerId="fal-ai/m" if provider == "fal-ai" else "p/m",
                status="live",
                task=task.replace("_", "-"),
            )
            _common.HARDCODED_MODEL_INFERENCE_MAPPING[provider] = {"o/n": mapping}
            client = InferenceClient(provider=provider, api_key="hf_k")
            call = getattr(client, task)
            record(
                cases,
                f"{provider} {task.replace('_', '-')}",
                lambda call=call, said=TASKS[task]: call(**said, model="o/n"),
                **answers_of(provider, task),
            )
    bare = InferenceClient(provider="hf-inference", api_key="hf_k")
    case = "hf-inference image-to-image alone"
    record(cases, case, lambda: bare.image_to_image(PNG, model="o/n"), models=PNG)
    return cases


def _providers() -> Any:
    from huggingface_hub.inference import _providers

    return _providers.PROVIDERS


class _Routed:
    """The router's name, where the package asks whether it speaks to the router."""

    def __init__(self, parsed: Any, provider: str) -> None:
        self._parsed, self._provider = parsed, provider

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parsed, name)

    @property
    def netloc(self) -> str:
        """As the package compares it, and as it then builds its URL."""
        return _Name(self._parsed.netloc)


class _Name(str):
    def __eq__(self, other: object) -> bool:
        return other == "router.huggingface.co" or str.__eq__(self, other)

    __hash__ = str.__hash__


def routed(provider: str) -> Callable[[str], Any]:
    from urllib.parse import urlparse

    return lambda url: _Routed(urlparse(url), provider)


save("fal", "fal-client", of_fal())
save("replicate", "replicate", of_replicate())
save("huggingface", "huggingface_hub", of_hub())
server.shutdown()
