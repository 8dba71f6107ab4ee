"""What blackforest 0.1.3 sends (it knows FLUX.1 alone), into bfl.json.

Run by hand, in an environment of its own, since it wants pillow 10.4.0:

    python -m venv /tmp/sdk-bfl && /tmp/sdk-bfl/bin/pip install blackforest==0.1.3
    /tmp/sdk-bfl/bin/python tests/providers/captures/record_bfl.py
"""

import base64
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

from blackforest import BFLClient
from PIL import Image

SEEN: list[dict[str, Any]] = []
CASES: list[dict[str, Any]] = []


class Recorder(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
        short = {k: "[base64]" if isinstance(v, str) and len(v) > 200 else v for k, v in body.items()}
        names = sorted(name.lower() for name in self.headers if name.lower() not in ("host", "accept-encoding"))
        SEEN.append({"method": self.command, "path": self.path, "headers": names, "json": short})
        data = json.dumps({"id": "b1", "polling_url": "http://127.0.0.1/v1/get_result?id=b1"}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def record(model: str, **inputs: Any) -> None:
    SEEN.clear()
    client.generate(model, {"prompt": "a cat", "seed": 7, "safety_tolerance": 3, "output_format": "png"} | inputs)
    CASES.append({"case": model, **SEEN[0]})


server = HTTPServer(("127.0.0.1", 0), Recorder)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = BFLClient(api_key="k", base_url=f"http://127.0.0.1:{server.server_port}")
buffer = io.BytesIO()
Image.effect_noise((256, 256), 60).convert("RGB").save(buffer, "PNG")
picture = base64.b64encode(buffer.getvalue()).decode()
record("flux-pro-1.1", width=512, height=768, image_prompt=picture, prompt_upsampling=True)
record("flux-pro-1.1-ultra", aspect_ratio="4:3", raw=True, image_prompt=picture, image_prompt_strength=0.3)
record("flux-dev", width=512, height=768, steps=20, guidance=2.5)
record("flux-kontext-pro", aspect_ratio="4:3", input_image=picture, input_image_2=picture)
record("flux-pro-1.0-fill", image=picture, mask=picture, steps=20, guidance=30.0)
record("flux-pro-1.0-expand", image=picture, top=64, right=128, steps=20, guidance=30.0)
server.shutdown()
told = {"sdk": f"blackforest {version('blackforest')}", "cases": CASES}
Path(__file__).with_name("bfl.json").write_text(json.dumps(told, indent=1) + "\n")
