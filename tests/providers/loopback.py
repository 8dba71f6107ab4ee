"""A vendor on this machine: answers as it is told, one after the other, and remembers what it was asked."""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from triptych.providers.remote import Remote
from triptych.providers.wire import tables
from triptych.providers.wire.account import Account, Secret
from triptych.providers.wire.http import Pace

KEY = "sk-loopback-0123456789abcdef"
SOON = Pace(tries=4, first=0.001, most=0.002, patience=5.0, poll=0.001)  # retries and polls without waiting


@dataclass
class Asked:
    """One request as it came in."""

    method: str
    path: str  # with its query
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def parts(self) -> list[tuple[str, str | None, str, bytes]]:
        """(name, file name, type, bytes) of a multipart body, in order."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        found = []
        for part in message_from_bytes(head + self.body).get_payload():
            name = part.get_param("name", header="content-disposition")
            found.append((name, part.get_filename(), part.get_content_type(), part.get_payload(decode=True)))
        return found


@dataclass
class Says:
    """One answer. cut: how many bytes of the body are sent before the connection is closed; slow: seconds before it."""

    status: int = 200
    body: Any = None  # bytes, text, or what becomes JSON
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    slow: float = 0.0
    hold: float = 0.0  # seconds between the cut and the end

    def bytes(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return (
            b"" if self.body is None else (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()
        )


Answer = Says | Callable[[Asked], Says]


class Loopback:
    """An HTTP server in a thread; `on` says what it answers. Unless told, it answers 418, which no test wants."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self._rules: list[tuple[str, re.Pattern[str], list[Answer]]] = []
        self._stop = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer goes out in one piece, and at once
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                pass

            def handle_any(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                if self.headers.get("transfer-encoding") == "chunked":
                    body = b""
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(length)
                asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                says = outer._answer(asked)
                outer._stop.wait(says.slow)
                data = says.bytes()
                self.send_response_only(says.status)
                if "date" not in says.headers:
                    self.send_header("date", self.date_time_string())
                headers = {"content-type": "application/json", "content-length": str(len(data))} | says.headers
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data if says.cut is None else data[: says.cut])
                if says.cut is not None:
                    self.wfile.flush()
                    outer._stop.wait(says.hold)
                    self.close_connection = True
                    self.connection.shutdown(2)

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any  # noqa: N815

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that went away

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def on(self, method: str, path: str, *answers: Answer) -> None:
        """path: a regular expression of the whole path with its query; the last answer goes on for ever."""
        self._rules.append((method, re.compile(path), list(answers)))

    def asked(self, method: str, path: str = ".*") -> list[Asked]:
        """The requests so far that were like this."""
        return [one for one in self.requests if one.method == method and re.fullmatch(path, one.path)]

    def close(self) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, asked: Asked) -> Says:
        self.requests.append(asked)
        for method, path, answers in self._rules:
            if method == asked.method and path.fullmatch(asked.path):
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                return answer(asked) if callable(answer) else answer
        return Says(418, f"nothing is told for {asked.method} {asked.path}")


def account(name: str, base_url: str, key: str | None = KEY, **rest: Any) -> Account:
    """A vendor's account whose base URL is a loopback server's; its price list holds there."""
    settings = {"prices": "list", **rest.pop("settings", {})}
    secret = None if key is None else Secret(key)
    return Account(tables.spec(name), secret, base_url, timeout=rest.pop("timeout", 5.0), settings=settings, **rest)


def remote(vendor: Any, base_url: str, folder: Path, **rest: Any) -> Remote:
    """A vendor behind the provider's verbs, its account on a loopback server."""
    told = account(vendor.name, base_url, **rest)
    return Remote(vendor, lambda: told, folder, SOON)


async def made(provider: Remote, request: Any) -> Any:
    """Submits, watches to the end and gives the Result."""
    resolved = await provider.resolve(request)
    ticket = await provider.submit(resolved.request)
    *_, last = [event async for event in provider.watch(ticket)]
    return last
