"""The Hugging Face hub, played by a server on this machine, with the other one that it sends for large files."""

import hashlib
import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from huggingface_hub import constants

COMMIT = "a" * 40
PIECE = 16 * 1024  # bytes that are written at once


class Hub:
    """Repositories by name: path -> bytes, or a file that holds them, or else the name of what is wrong with all.

    Remembers what it was asked.

    Large files are sent as far as `most` bytes altogether, then nothing more until `go` is set; a connection that is
    in `cuts` is cut off after so many bytes; `ranges` is whether it sends less than the whole of one.
    """

    def __init__(self):
        self.repositories, self.asked, self.sent, self.known = {}, [], Counter(), set()
        self.most, self.go, self.cuts, self.ranges, self.damaged = 2**63, threading.Event(), [], True, False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self.go.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path):
        """(status, headers, body)"""
        name = next((name for name in self.repositories if f"/{name}/" in f"{path}/"), None)
        files = self.repositories.get(name)
        wrong = files if isinstance(files, str) else "RepoNotFound" if files is None else None
        if wrong is None and "/nosuch" in path:
            wrong = "RevisionNotFound"
        if wrong is not None:
            status = {"GatedRepo": 403, "Down": 500}.get(wrong, 404)
            return status, {"X-Error-Code": wrong, "X-Error-Message": wrong}, b"{}"
        if path.startswith("/api/"):
            told = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
            return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()
        file = path.partition("/resolve/")[2].partition("/")[2]
        if file not in files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        body = files[file]
        if not file.endswith((".safetensors", ".gguf", ".ckpt")):
            return 200, {"ETag": f'"{hashlib.sha1(file.encode() + body).hexdigest()}"', "X-Repo-Commit": COMMIT}, body
        size = len(body) if isinstance(body, bytes) else body.stat().st_size
        digest = hashlib.sha256(body if isinstance(body, bytes) else str(body).encode()).hexdigest()
        elsewhere = f"http://localhost:{self.server.server_port}/large/{name}/{file}"
        told = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(size), "X-Repo-Commit": COMMIT}
        return 302, {"Location": elsewhere, "ETag": '"no sha"', **told}, b""

    def large(self, path, span):
        """(status, headers, body) of the server beside the hub."""
        name = next(name for name in self.repositories if path.startswith(f"/large/{name}/"))
        body = self.repositories[name][path.removeprefix(f"/large/{name}/")]
        if self.damaged:
            body = bytes(len(body))
        if span is None or not self.ranges:
            return 200, {}, body
        first, last = (int(number or 0) for number in re.fullmatch(r"bytes=(\d+)-(\d*)", span).groups())
        if isinstance(body, bytes):
            size, piece = len(body), body[first : last + 1 if last else None]
        else:
            with body.open("rb") as file:
                file.seek(first)
                size, piece = body.stat().st_size, file.read(last + 1 - first)
        return 206, {"Content-Range": f"bytes {first}-{first + len(piece) - 1}/{size}"}, piece

    def handler(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                span = self.headers["Range"]
                hub.asked.append((self.command, self.path, span))
                large = self.path.startswith("/large/")
                hub.known.add((large, self.headers["Authorization"]))
                status, headers, body = hub.large(self.path, span) if large else hub.answer(self.path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.write(body, large)

            def write(self, body, large):
                cut = hub.cuts.pop(0) if large and hub.cuts else len(body)
                for start in range(0, cut, PIECE):
                    if large and sum(hub.sent.values()) >= hub.most:
                        hub.go.wait(30)
                    piece = body[start : min(start + PIECE, cut)]
                    try:
                        self.wfile.write(piece)
                    except OSError:  # nobody listens any more
                        return
                    hub.sent[self.path] += len(piece) if large else 0

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        return Handler

    def fetched(self):
        """Files of which all was asked for, or the rest."""
        return {name for name, span in self._files() if span is None or span.endswith("-")}

    def looked(self):
        """Files of which only the beginning was asked for."""
        return {name for name, span in self._files() if span is not None} - self.fetched()

    def _files(self):
        for verb, path, span in self.asked:
            if verb == "GET" and "/resolve/" in path:
                yield path.partition("/resolve/")[2].partition("/")[2], span


def point(monkeypatch, hub, cache):
    """Makes the library of this process ask this hub, with an empty cache."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between retries
