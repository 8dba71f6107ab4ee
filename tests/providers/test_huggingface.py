"""Hugging Face: for every provider behind its router, what huggingface_hub sends, and what comes of the answers."""

import base64
import json
from pathlib import Path

import pytest
from hosts import hub
from loopback import KEY, Loopback, Says, account
from wares import again, captured, clip, picture, png, remote, run, submit, watch

from triptych.errors import (
    BadAnswer,
    InDoubt,
    InvalidField,
    KeyRefused,
    NotSetUp,
    OutOfCredit,
    PriceUnknown,
    ProviderError,
    Refused,
    UnknownName,
    Unreachable,
)
from triptych.media import read_recipe
from triptych.providers.hosted.routes import ROUTES
from triptych.providers.huggingface import TASKS, HuggingFace
from triptych.types import Artifact, Request

MODEL = r"/api/models/o/n\?expand=.*"
RED = Artifact("image/png", picture(8, 8))
SAID = {  # as record_hosts.py says it to huggingface_hub
    "text-to-image": {"prompt": "a cat", "negative_prompt": "b", "width": 512, "height": 768, "steps": 4}
    | {"guidance_scale": 3.5, "seed": 7},
    "image-to-image": {"prompt": "a cat", "inputs": {"init": RED}, "steps": 4, "guidance_scale": 3.5},
    "text-to-video": {"prompt": "a cat", "steps": 4, "seed": 7, "options": {"num_frames": 16}},
    "image-to-video": {"prompt": "a cat", "inputs": {"init": RED}, "steps": 4, "seed": 7},
}


@pytest.fixture
def there():
    server = Loopback()
    yield server
    server.close()


def at(server, folder, **rest):
    rest["settings"] = {"hub": server.url} | rest.get("settings", {})
    told = account("huggingface", server.url, **rest)
    return remote(HuggingFace(lambda: told), server.url, folder, **rest)


@pytest.fixture
def here(there, tmp_path):
    return at(there, tmp_path / "tickets")


def offers(there, task, **providers):
    there.on("GET", MODEL, Says(200, hub(task, **providers)))


def answers(there, provider, task):
    """What a provider says from the request to the result, as its answers were read in huggingface_hub's source."""
    link = f"{there.url}/signed/a.mp4" if task.endswith("video") else f"{there.url}/signed/a.png"
    file = clip() if task.endswith("video") else picture()
    inline = {"data": [{"b64_json": base64.b64encode(file).decode()}]}
    media = {"video": {"url": link}} if task.endswith("video") else {"images": [{"url": link}]}
    there.on("GET", "/signed/.*", Says(200, file))
    match provider:
        case "hf-inference":
            there.on("POST", ".*", Says(200, file, {"content-type": "image/png"}))
        case "fal-ai":
            job = {
                "request_id": "r1",
                "status": "IN_QUEUE",
                "response_url": "https://queue.fal.run/fal-ai/m/requests/r1",
            }
            there.on("POST", ".*queue", Says(200, job))
            there.on("POST", ".*", Says(200, media))
            looks = Says(200, {"status": "IN_PROGRESS"}), Says(200, {"status": "COMPLETED"})
            there.on("GET", r"/fal-ai/fal-ai/m/requests/r1/status\?_subdomain=queue", *looks)
            there.on("GET", r"/fal-ai/fal-ai/m/requests/r1\?_subdomain=queue", Says(200, media))
        case "replicate":
            job = {"id": "p1", "status": "processing", "urls": {"get": "https://api.replicate.com/v1/predictions/p1"}}
            there.on("POST", ".*", Says(201, job))
            there.on("GET", "/replicate/v1/predictions/p1", Says(200, job | {"status": "succeeded", "output": [link]}))
        case "together":
            done = {"id": "v1", "status": "completed", "outputs": {"video_url": link}}
            there.on("POST", ".*images.*", Says(200, inline))
            there.on("POST", ".*videos", Says(200, {"id": "v1", "status": "queued"}))
            there.on("GET", "/together/v2/videos/v1", Says(200, done))
        case "nscale":
            there.on("POST", ".*", Says(200, inline))
        case "novita":
            there.on("POST", ".*", Says(200, {"video": {"video_url": link}}))
        case "wavespeed":
            urls = {"get": "https://api.wavespeed.ai/api/v3/predictions/w1/result"}
            there.on("POST", ".*", Says(200, {"data": {"urls": urls, "status": "created"}}))
            done = Says(200, {"data": {"status": "completed", "outputs": [link]}})
            there.on("GET", "/wavespeed/api/v3/predictions/w1/result", done)
        case "zai-org":
            there.on("POST", ".*", Says(200, {"id": "z1", "task_status": "PROCESSING"}))
            done = Says(200, {"id": "z1", "task_status": "SUCCESS", "image_result": [{"url": link}]})
            there.on("GET", "/zai-org/api/paas/v4/async-result/z1", done)


def short(told):
    """As record_hosts.py shortens what it saw; which kind of picture it was is left out, theirs guesses it."""
    if isinstance(told, dict):
        return {name: short(one) for name, one in told.items()}
    if isinstance(told, list):
        return [short(one) for one in told]
    if isinstance(told, str) and told.startswith("data:"):
        return "data:"
    return "[base64]" if isinstance(told, str) and len(told) > 100 else told


@pytest.mark.parametrize(("provider", "task"), ROUTES)
def test_the_same_is_sent_as_by_huggingface_hub(there, here, provider, task):
    mapped = "fal-ai/m" if provider == "fal-ai" else "p/m"
    offers(there, task, **{provider: {"providerId": mapped}})
    answers(there, provider, task)
    request = Request(f"huggingface:{provider}/o/n", **SAID[task])
    if provider == "nscale":  # which takes no steps: huggingface_hub leaves them out without a word
        request = Request(f"huggingface:{provider}/o/n", **{k: v for k, v in SAID[task].items() if k != "steps"})
    if task == "image-to-image":
        assert "seed" not in here.card(request.model).fields
    result = run(here, request)
    assert result.artifacts[0].mime == ("video/mp4" if task.endswith("video") else "image/png")
    theirs = captured("huggingface")[f"{provider} {task}"]["requests"]
    mine = [one for one in there.requests if "signed" not in one.path and "/api/models" not in one.path]
    assert (mine[0].method, mine[0].path) == (theirs[0]["method"], theirs[0]["path"])
    assert short(mine[0].json) == short(theirs[0]["json"])
    assert set(theirs[0]["headers"]) - {"x-amzn-trace-id"} <= set(mine[0].headers)
    if task in ("text-to-image", "image-to-image"):
        assert mine[0].headers["accept"] == theirs[0]["accept"] == "image/png"
    if provider != "replicate":  # where theirs never looks again
        assert {one.path for one in mine[1:]} == {one["path"] for one in theirs[1:]}
    assert len(there.asked("POST")) == 1
    assert {one.headers["authorization"] for one in mine} == {f"Bearer {KEY}"}
    assert all("authorization" not in one.headers for one in there.asked("GET", "/signed/.*"))


def test_every_captured_case_has_a_route_here():
    cases = {tuple(case.split(" ")[:2]) for case in captured("huggingface")}
    assert cases == set(ROUTES)


def test_a_picture_alone_goes_as_it_is(there, here):
    offers(there, "image-to-image", **{"hf-inference": {}})
    answers(there, "hf-inference", "image-to-image")
    run(here, Request("huggingface:o/n", "", inputs={"init": RED}))
    mine, theirs = there.asked("POST")[0], captured("huggingface")["hf-inference image-to-image alone"]["requests"][0]
    assert (mine.path, mine.body, mine.headers["content-type"]) == (theirs["path"], RED.data, "image/png")


def test_the_same_is_sent_as_in_the_shared_captures(there, here):
    path = Path(__file__).parents[2].parent / "shared" / "specs" / "captured_sdk_requests.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    theirs = next(one for one in json.loads(path.read_text()) if one["case"].startswith("hf "))
    offers(there, "text-to-image", **{"hf-inference": {}})
    answers(there, "hf-inference", "text-to-image")
    run(
        here,
        Request(
            "huggingface:o/n", "a cat", negative_prompt="b", width=512, height=512, steps=4, guidance_scale=3, seed=1
        ),
    )
    mine = there.asked("POST")[0]
    assert mine.json == theirs["json"]
    assert mine.headers["accept"] == theirs["headers"]["Accept"]


def test_without_a_provider_it_is_the_first_that_is_known_and_live(there, here):
    offers(there, "text-to-image", sambanova={}, novita={}, replicate={"status": "error"}, together={})
    assert here.card("huggingface:o/n").settings["provider"] == "together"
    assert here.card("huggingface:replicate/o/n").settings["mapped"] == "p/m"
    assert here.card("huggingface:o/n").license == "apache-2.0"


def test_a_pipeline_tag_is_enough_for_hugging_faces_own_machines_and_a_task_can_be_told(there, here):
    there.on("GET", MODEL, Says(200, {"id": "o/n", "pipeline_tag": "text-to-image", "tags": []}))
    assert here.card("huggingface:o/n").settings | {"ways": 0, "schema": 0} == {
        "ways": 0, "schema": 0, "batch": 1, "provider": "hf-inference", "task": "text-to-image", "id": "o/n",
        "mapped": "o/n", "lora": "",
    }  # fmt: skip
    assert "init" in here.card("huggingface:o/n#image-to-image").fields
    with pytest.raises(InvalidField, match=r"served by hf-inference \(text-to-image\).*#TASK"):
        here.card("huggingface:o/n#text-to-video")
    with pytest.raises(InvalidField, match="with one of fal-ai, hf-inference"):
        here.card("huggingface:nobody/o/n")


def test_an_adapter_goes_along_as_the_provider_wants_it(there, here):
    lora = {"adapter": "lora", "adapterWeightsPath": "w.safetensors"}
    offers(
        there,
        "text-to-image",
        **{"fal-ai": {"providerId": "fal-ai/lora", **lora}},
        replicate={"providerId": "a/b:v1", **lora},
    )
    answers(there, "fal-ai", "text-to-image")
    run(here, Request("huggingface:o/n", "a cat", seed=1))
    assert there.asked("POST")[-1].json | {"seed": 0} == {
        "prompt": "a cat", "seed": 0, "image_size": {"width": 1024, "height": 1024},
        "loras": [{"path": "https://huggingface.co/o/n/resolve/main/w.safetensors", "scale": 1}],
        "model_name": "stabilityai/stable-diffusion-xl-base-1.0",
    }  # fmt: skip
    there._rules = [rule for rule in there._rules if rule[0] != "POST"]
    answers(there, "replicate", "text-to-image")
    run(here, Request("huggingface:replicate/o/n", "a cat", seed=1))
    mine = there.asked("POST")[-1]
    assert (mine.path, mine.json["version"]) == ("/replicate/v1/predictions", "v1")
    assert mine.json["input"]["lora_weights"] == "https://huggingface.co/o/n"


def test_a_size_of_a_changed_picture(there, here):
    offers(there, "image-to-image", **{"fal-ai": {"providerId": "fal-ai/m"}})
    answers(there, "fal-ai", "image-to-image")
    run(here, Request("huggingface:o/n", "a cat", inputs={"init": RED}, options={"target_size": "640x480"}))
    assert there.asked("POST")[0].json["image_size"] == {"width": 640, "height": 480}


@pytest.mark.parametrize(
    ("says", "kind", "words"),
    [
        (Says(401, {"error": "Invalid credentials"}), KeyRefused, "settings/tokens"),
        (Says(402, {"error": "You have exceeded your monthly included credits"}), OutOfCredit, "exceeded"),
        (Says(400, {"error": {"message": "NSFW content", "type": "x"}}), Refused, "NSFW"),
        (Says(404, "Not Found", {"content-type": "text/plain"}), ProviderError, "Not Found"),
        (Says(503, {"error": "Model o/n is currently loading", "estimated_time": 20}), InDoubt, "loading"),
        (Says(200, {"error": "it broke"}), ProviderError, "it broke"),
        (Says(200, "<html>"), BadAnswer, "not whole JSON"),
        (Says(200, b"no picture", {"content-type": "image/png"}), BadAnswer, "the result"),
    ],
)
def test_what_goes_wrong(there, here, says, kind, words):
    offers(there, "text-to-image", **{"hf-inference": {}})
    there.on("POST", ".*", says)
    with pytest.raises(kind, match=words) as caught:
        run(here, Request("huggingface:o/n", "a cat"))
    assert KEY not in str(caught.value)
    assert len(there.asked("POST")) == 1


@pytest.mark.parametrize(
    ("provider", "task", "look", "words"),
    [
        ("together", "text-to-video", {"id": "v1", "status": "failed", "error": {"message": "too long"}}, "too long"),
        ("wavespeed", "text-to-image", {"data": {"status": "failed", "error": "no GPU"}}, "no GPU"),
        ("zai-org", "text-to-image", {"id": "z1", "task_status": "FAIL"}, "FAIL"),
        ("fal-ai", "text-to-video", {"status": "COMPLETED", "error": "it burned"}, "it burned"),
        ("replicate", "text-to-image", {"id": "p1", "status": "failed", "error": "no memory"}, "no memory"),
    ],
)
def test_what_fails_in_a_queue(there, here, provider, task, look, words):
    offers(there, task, **{provider: {"providerId": "fal-ai/m"}})
    there.on("GET", "/(?!api/models).*", Says(200, look))
    answers(there, provider, task)
    with pytest.raises(ProviderError, match=words):
        run(here, Request(f"huggingface:{provider}/o/n", "a cat"))


def test_after_a_restart(there, here, tmp_path):
    offers(there, "text-to-video", **{"fal-ai": {"providerId": "fal-ai/m"}})
    answers(there, "fal-ai", "text-to-video")
    ticket = submit(here, Request("huggingface:fal-ai/o/n", "a cat", seed=7))
    there._rules = [rule for rule in there._rules if "models" not in rule[1].pattern]
    result = watch(at(there, tmp_path / "nothing"), again(ticket))[-1]
    assert result.artifacts[0].mime == "video/mp4"
    assert (result.cost, result.cost_from) == (None, "")


def test_samples_are_asked_for_one_by_one_and_who_served_is_kept(there, here):
    offers(there, "text-to-image", **{"hf-inference": {}})
    answers(there, "hf-inference", "text-to-image")
    result = run(here, Request("huggingface:o/n", "a cat", count=3, seed=7))
    assert [one.json["parameters"]["seed"] for one in there.asked("POST")] == [7, 8, 9]
    assert read_recipe(result.artifacts[2].data, "x.png")["told"][0] == {"served_by": "hf-inference"}


def test_who_pays_can_be_told(there, tmp_path):
    here = at(there, tmp_path, settings={"bill_to": "acme"})
    offers(there, "text-to-image", **{"hf-inference": {}})
    answers(there, "hf-inference", "text-to-image")
    run(here, Request("huggingface:o/n", "a cat"))
    assert there.asked("POST")[0].headers["x-hf-bill-to"] == "acme"


def test_every_route_has_a_card_and_no_price_is_made_up(there, here):
    for provider, task in ROUTES:
        there._rules = []
        offers(there, task, **{provider: {}})
        here._vendor._shelf.known.clear()
        name = f"huggingface:{provider}/o/n"
        inputs = {"init": png()} if task.startswith("image") else {}
        with pytest.raises(PriceUnknown):
            here.price(Request(name, "a cat", inputs=inputs))
        assert here.card(name).settings["task"] in TASKS


def test_what_needs_mending(there, here, tmp_path):
    there.on(
        "GET",
        "/api/models/.*",
        Says(401, {"error": "x"}, {"x-error-code": "RepoNotFound"}),
        Says(403, {"error": "gated"}),
    )
    with pytest.raises(UnknownName, match="OWNER/NAME of any model at"):
        here.card("huggingface:no/such")
    with pytest.raises(KeyRefused, match="gated"):
        here.card("huggingface:gated/model")
    offers(there, "text-to-image", **{"hf-inference": {}})
    with pytest.raises(UnknownName):
        here.card("huggingface:a/b/c/d")
    there._rules = there._rules[1:]
    with pytest.raises(NotSetUp, match="HF_TOKEN"):
        submit(at(there, tmp_path, key=None), Request("huggingface:o/n", "a cat"))
    there.close()
    with pytest.raises(Unreachable):
        at(there, tmp_path).card("huggingface:o/n")
