"""The hub, played by a server on this machine: what is fetched, what comes from the cache, and what errors say."""

import errno
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from triptych.errors import InvalidField, WeightsError
from triptych.weights import hub
from triptych.weights.files import open_bundle

COMMIT = "a" * 40
WEIGHTS = save({"a": torch.zeros(3)})


class Hub:
    """Repositories by name: path -> bytes, or the name of what is wrong with them. Remembers what it was asked."""

    def __init__(self):
        self.repositories, self.asked = {}, []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
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
        return 200, {"ETag": f'"{hashlib.sha1(file.encode() + body).hexdigest()}"', "X-Repo-Commit": COMMIT}, body

    def handler(self):
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.asked.append((self.command, self.path))
                status, headers, body = hub.answer(self.path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        return Handler

    def fetched(self):
        """Files that were sent."""
        return {path.partition("/resolve/")[2].partition("/")[2] for verb, path in self.asked if verb == "GET"} - {""}


@pytest.fixture
def server(monkeypatch, tmp_path):
    played = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", played.url)
    template = played.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between retries
    yield played
    played.stop()


def index(*parts):
    return json.dumps(
        {"_class_name": "X", "gone": [None, None], **{part: ["library", "Kind"] for part in parts}}
    ).encode()


def diffusers():
    plain, half = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"
    return {
        "README.md": b"words",
        "whole.safetensors": WEIGHTS,
        "model_index.json": index("unet", "vae", "tokenizer", "safety_checker"),
        f"unet/{plain}": WEIGHTS,
        f"unet/{half}": WEIGHTS,
        "unet/diffusion_pytorch_model.bin": b"pickle",
        "unet/config.json": b"{}",
        "unet/model.onnx": b"onnx",
        f"vae/{plain}": WEIGHTS,
        "vae/config.json": b"{}",
        "tokenizer/vocab.json": b"{}",
        "tokenizer/merges.txt": b"",
        "safety_checker/model.safetensors": WEIGHTS,
        "other/model.safetensors": WEIGHTS,
    }


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("owner/name", hub.Reference("owner/name")),
        ("owner/name@v1.0", hub.Reference("owner/name", "v1.0")),
        ("owner/name@refs/pr/7", hub.Reference("owner/name", "refs/pr/7")),
        ("owner/name/x.safetensors", hub.Reference("owner/name", None, "x.safetensors")),
        ("o/n/a/b c.safetensors@main", hub.Reference("o/n", "main", "a/b c.safetensors")),
    ],
)
def test_names(text, wanted):
    assert hub.parse(text) == wanted
    assert str(wanted) == text


@pytest.mark.parametrize(
    "text", ["", "name", "owner/", "/name", "owner/name@", "o/n/../x", "o/n//x", "../x", "o/n@a\n", "ö/n"]
)
def test_what_is_no_name(text):
    with pytest.raises(InvalidField, match="owner/name"):
        hub.parse(text)


def test_only_what_is_needed_is_fetched(server):
    server.repositories["owner/name"] = diffusers()
    found = hub.fetch(hub.parse("owner/name"))
    assert server.fetched() == set(found.files) == {
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "tokenizer/vocab.json",
    }  # fmt: skip
    assert str(found.pinned) == f"owner/name@{COMMIT}"
    assert set(open_bundle(found.path).sets) == {"unet", "vae"}


def test_a_variant_only_if_asked_and_where_there_is_one(server):
    server.repositories["owner/name"] = diffusers()
    hub.fetch(hub.parse("owner/name"), "fp16")
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in server.fetched()
    assert "unet/diffusion_pytorch_model.safetensors" not in server.fetched()
    assert "vae/diffusion_pytorch_model.safetensors" in server.fetched()
    with pytest.raises(WeightsError, match="no part in the variant 'fp8'"):
        hub.fetch(hub.parse("owner/name"), "fp8")


def test_one_file(server):
    server.repositories["owner/name"] = diffusers()
    found = hub.fetch(hub.parse("owner/name/unet/config.json@main"))
    assert server.fetched() == {"unet/config.json"}
    assert found.path.read_bytes() == b"{}"
    assert found.pinned == hub.Reference("owner/name", COMMIT, "unet/config.json")
    with pytest.raises(WeightsError, match=r"the hub has no owner/name/nothing.safetensors. What there is: https"):
        hub.fetch(hub.parse("owner/name/nothing.safetensors"))


def test_repositories_with_one_network(server):
    server.repositories["o/lora"] = {"README.md": b"", "my-lora.safetensors": WEIGHTS}
    assert hub.fetch(hub.parse("o/lora")).path.name == "my-lora.safetensors"
    server.repositories["o/two"] = {"a.safetensors": WEIGHTS, "b.safetensors": WEIGHTS}
    with pytest.raises(WeightsError, match=r"but a.safetensors, b.safetensors. Name one"):
        hub.fetch(hub.parse("o/two"))
    server.repositories["o/old"] = {"model.ckpt": b""}
    with pytest.raises(WeightsError, match=r"only pickles \(model.ckpt\)"):
        hub.fetch(hub.parse("o/old"))
    server.repositories["o/none"] = {"README.md": b""}
    with pytest.raises(WeightsError, match="holds no weights"):
        hub.fetch(hub.parse("o/none"))


def test_shards(server):
    names = ["diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors"]
    table = json.dumps({"weight_map": {"a": names[0], "b": names[1]}}).encode()
    shards = {names[0]: WEIGHTS, names[1]: save({"b": torch.ones(2)})}
    files = {"config.json": b"{}", "diffusion_pytorch_model.safetensors.index.json": table, **shards}
    server.repositories["o/big"] = files
    assert set(open_bundle(hub.fetch(hub.parse("o/big")).path).sets[""].names()) == {"a", "b"}
    outside = json.dumps({"weight_map": {"a": "../../x.safetensors"}}).encode()
    server.repositories["o/evil"] = {"model.safetensors.index.json": outside}
    with pytest.raises(WeightsError, match="not beside it"):
        hub.fetch(hub.parse("o/evil"))


def test_without_a_network_the_cache_answers(server, monkeypatch):
    server.repositories["owner/name"] = diffusers()
    before = hub.fetch(hub.parse("owner/name"))
    pinned = hub.fetch(before.pinned)
    assert pinned.path == before.path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.asked.clear()
    assert hub.fetch(hub.parse("owner/name")) == before
    assert hub.fetch(before.pinned) == before
    assert hub.fetch(hub.parse("owner/name/model_index.json")).path == before.path / "model_index.json"
    with pytest.raises(
        hub.Unreachable, match=r"no network to fetch owner/other.*Nothing of owner/other is in the cache"
    ):
        hub.fetch(hub.parse("owner/other"))
    with pytest.raises(hub.Unreachable, match="Go online, or name a local file"):
        hub.fetch(hub.parse("owner/name/whole.safetensors"))
    assert server.asked == []


def test_a_dead_network_is_none(server):
    server.stop()
    with pytest.raises(hub.Unreachable, match="no network"):
        hub.fetch(hub.parse("owner/name"))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("GatedRepo", "gated: accept its terms at https://huggingface.co/owner/name .* HF_TOKEN"),
        ("RepoNotFound", "the hub has no model owner/name, or it is private"),
        ("Down", "the hub answers 500"),
    ],
)
@pytest.mark.parametrize("text", ["owner/name", "owner/name/x.safetensors"])
def test_what_is_wrong_is_explained(server, wrong, reason, text):
    server.repositories["owner/name"] = wrong
    if (wrong, text) == ("Down", "owner/name/x.safetensors"):
        reason = "no network to fetch"  # the library does not say which
    with pytest.raises(WeightsError, match=reason):
        hub.fetch(hub.parse(text))


def test_revisions_that_are_not_there(server):
    server.repositories["owner/name"] = diffusers()
    for text in ("owner/name@nosuch", "owner/name/model_index.json@nosuch"):
        with pytest.raises(WeightsError, match="owner/name has no revision 'nosuch'"):
            hub.fetch(hub.parse(text))


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "the disk is full .* HF_HOME"), (errno.EACCES, "the cache cannot be written")]
)
def test_trouble_on_this_side(monkeypatch, number, reason):
    def fail(*_, **__):
        raise OSError(number, "trouble")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsError, match=reason) as found:
        hub.fetch(hub.parse("owner/name/x.safetensors"))
    assert not isinstance(found.value, hub.Unreachable)
