"""Jobs: each is written down, an unknown one is an error, a stopped one goes on."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from triptych.errors import Cancelled, FileProblem, InvalidField, NotFinite, RequestError, UnknownName
from triptych.providers import Price, Resolved
from triptych.service import Service, default
from triptych.service.config import Config, config
from triptych.service.jobs import Job, Store, identity
from triptych.types import Artifact, Axis, Card, Field, Progress, Request, Result, Ticket


class Paid:
    """A provider like any vendor: it answers from memory and remembers what it was asked."""

    name = "paid"

    def __init__(self, problem=None):
        self.problem, self.log, self.gate = problem, [], asyncio.Event()

    def cards(self):
        axes = (Axis("height", 8, 8, 64, multiple=8), Axis("width", 8, 8, 64, multiple=8))
        fields = {"prompt": Field("str", minimum=1), "seed": Field("int"), "init": Field("artifact")}
        return {"vendor": Card("vendor", "paid", "image", axes, fields, "api")}

    def card(self, name):
        if name not in self.cards():
            raise UnknownName("model", name, self.cards())
        return self.cards()[name]

    def gateway(self):
        return False

    async def resolve(self, request):
        return Resolved(self.cards()["vendor"].resolve(request), ("told early",))

    def price(self, request):
        return Price(0.04)

    async def submit(self, request, key=None):
        self.log.append("submit")
        return Ticket(self.name, request, {"id": f"remote-{len(self.log)}"})

    def find(self, key, request):
        return None

    async def watch(self, ticket):
        self.log.append(f"watch {ticket.handle['id']}")
        yield Progress(0.5, "painting")
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        yield Result((Artifact("image/png", b"bytes"),), {"request": {"seed": 1}}, cost=0.04)

    async def cancel(self, ticket):
        self.log.append("cancel")
        self.problem = Cancelled("stopped")
        self.gate.set()

    def kept(self, ticket):
        return "" if "forget" in self.log else "a paid ticket"

    async def forget(self, ticket):
        self.log.append("forget")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "jobs", tmp_path / "inputs")


def run(provider, store, story):
    """Runs a story of (service, job) with the job submitted."""

    async def told():
        service = Service([provider], store)
        return await story(service, await service.submit(Request("vendor", "a fox")))

    return asyncio.run(told())


async def last(service, job):
    *_, end = [now async for now in service.watch(job.id)]
    return end


def test_a_job_from_beginning_to_end(store):
    provider = Paid()

    async def story(service, job):
        seen = []
        async for now in service.watch(job.id):
            seen.append((now.state, now.progress.fraction))
            if now.state == "running":
                provider.gate.set()
        return seen, service.job(job.id)

    seen, job = run(provider, store, story)
    assert seen[0][0] == "queued"
    assert ("running", 0.5) in seen
    assert seen[-1] == ("done", 1.0)
    assert job.result.cost == 0.04
    entry = json.loads((store._jobs / job.id / "job.json").read_text())
    assert (entry["job"], entry["state"], entry["cost"]) == (2, "done", 0.04)
    assert entry["ticket"] == {"handle": {"id": "remote-1"}, "state": "queued"}
    assert entry["price"] == {"most": 0.04, "least": None, "why": ""}
    assert job.result.warnings == ("told early",)
    assert entry["request"]["prompt"] == "a fox"


def test_every_watcher_sees_the_end(store):
    provider = Paid()

    async def story(service, job):
        watchers = [asyncio.create_task(last(service, job)) for _ in range(3)]
        await asyncio.sleep(0)
        provider.gate.set()
        return await asyncio.gather(*watchers, last(service, job))

    assert {job.state for job in run(provider, store, story)} == {"done"}


def test_failure_is_a_state(store):
    provider = Paid(NotFinite("decoding"))
    provider.gate.set()
    job = run(provider, store, last)
    assert job.state == "failed"
    assert isinstance(job.error, NotFinite)
    assert job.kept == "a paid ticket"
    read = Service([provider], store).job(job.id)
    assert read.state == "failed"
    assert str(read.error) == str(job.error)


def test_a_provider_that_ends_without_a_result_has_failed(store):
    class Silent(Paid):
        async def watch(self, ticket):
            yield Progress(0.1)

    job = run(Silent(), store, last)
    assert job.state == "failed"
    assert "without a result" in str(job.error)


def test_cancel_reaches_the_provider_once(store):
    provider = Paid()

    async def story(service, job):
        async for now in service.watch(job.id):
            if now.state == "running":
                await service.cancel(job.id)
        after = await service.cancel(job.id)
        return now, after

    now, after = run(provider, store, story)
    assert now.state == after.state == "cancelled"
    assert provider.log.count("cancel") == 1


def test_resuming_watches_the_same_ticket_and_pays_nothing_twice(store):
    provider = Paid(NotFinite("decoding"))
    provider.gate.set()
    job = run(provider, store, last)
    provider.problem = None

    async def story():
        service = Service([provider], store)  # as another process would, from the disk
        return await last(service, await service.resume(job.id))

    again = asyncio.run(story())
    assert again.state == "done"
    assert again.id == job.id
    assert provider.log == ["submit", "watch remote-1", "watch remote-1"]


def test_only_what_stopped_and_kept_something_is_resumed(store):
    provider = Paid()

    async def story(service, job):
        with pytest.raises(RequestError, match="is queued in process"):
            await service.resume(job.id)
        provider.gate.set()
        await last(service, job)
        await service.release(job.id)
        with pytest.raises(RequestError, match="has kept nothing"):
            await service.resume(job.id)

    run(provider, store, story)


def test_resuming_with_a_wrong_option_is_refused(store):
    provider = Paid(NotFinite("decoding"))
    provider.gate.set()
    job = run(provider, store, last)
    with pytest.raises(InvalidField, match="device"):
        asyncio.run(Service([provider], store).resume(job.id, {"device": "cpu"}))


def test_unknown_ids_are_errors_never_done(store):
    service = Service([Paid()], store)

    async def watched():
        return [now async for now in service.watch("nosuch")]

    for coroutine in (watched(), service.cancel("nosuch"), service.resume("nosuch"), service.release("nosuch")):
        with pytest.raises(UnknownName, match="unknown job 'nosuch'"):
            asyncio.run(coroutine)
    for odd in ("nosuch", "", "../jobs", ".", "a/b"):
        with pytest.raises(UnknownName):
            service.job(odd)


def test_unknown_models_are_errors(store):
    service = Service([Paid()], store)
    with pytest.raises(UnknownName, match="Did you mean 'vendor'"):
        asyncio.run(service.submit(Request("vendr", "x")))
    with pytest.raises(UnknownName):
        service.price(Request("vendr", "x"))
    assert service.price(Request("vendor", "x")).most == 0.04
    assert store.ids() == []


def test_a_job_whose_process_is_gone_is_interrupted(store):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    job = Job("1", Request("vendor", "x"), "paid", "running", ticket=Ticket("paid", Request("vendor", "x")))
    service = Service([Paid()], store)
    for process, state in [
        (identity(os.getpid()), "running"),
        (gone.stdout.decode().strip(), "interrupted"),
        (f"{os.getpid()}@1", "interrupted"),
        (f"{os.getppid()}", "interrupted" if Path("/proc/1/stat").exists() else "running"),
        (identity(os.getppid()), "running"),
        ("", "interrupted"),
    ]:
        store.write(replace(job, process=process))
        assert service.job("1").state == state, process


def test_requests_come_back_from_the_disk_with_their_inputs(store):
    init = Artifact("image/png", b"some bytes", {"file": "fox.png"})
    request = Request("vendor", "a \udce9 fox 狐", inputs={"init": init}, seed=3, width=8, options={"a": 1, "b": "c"})
    store.add(Job("1", request, "paid", "done", created="2026", ticket=Ticket("paid", request, {"r": 1})))
    found = store.read("1")
    assert found.request == request
    assert found.ticket == Ticket("paid", request, {"r": 1})


def test_a_lost_or_changed_input_is_told(store):
    request = Request("vendor", "a fox", inputs={"init": Artifact("image/png", b"some bytes")})
    store.add(Job("1", request, "paid", "done"))
    [kept] = store._inputs.iterdir()
    kept.write_bytes(b"other bytes")
    with pytest.raises(FileProblem, match="the init of this job is no longer"):
        store.read("1")
    kept.unlink()
    with pytest.raises(FileProblem, match="the init of this job is no longer"):
        store.read("1")
    assert Service([Paid()], store).jobs() == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"job": 3}', "\0"])
def test_damaged_jobs_are_named_and_skipped_in_lists(store, text):
    store.write(Job("1", Request("vendor", "x"), "paid", "done"))
    store.write(Job("2", Request("vendor", "x"), "paid", "done"))
    (store._jobs / "1" / "job.json").write_text(text)
    with pytest.raises(FileProblem, match=r"job\.json"):
        store.read("1")
    assert [job.id for job in Service([Paid()], store).jobs()] == ["2"]


def test_writing_leaves_nothing_beside_the_job(store):
    for _ in range(3):
        store.write(Job("1", Request("vendor", "x"), "paid", "done"))
    assert [path.name for path in (store._jobs / "1").iterdir()] == ["job.json"]


def test_a_home_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    service = Service([Paid()], Store(tmp_path / "file" / "jobs", tmp_path / "file" / "inputs"))
    with pytest.raises(FileProblem, match="TRIPTYCH_HOME"):
        asyncio.run(service.submit(Request("vendor", "x")))


def test_notes_that_cannot_be_written_do_not_end_a_job(store, monkeypatch):
    provider = Paid()

    async def story(service, job):
        def full(*_, **__):
            raise FileProblem("the disk is full")

        async for now in service.watch(job.id):
            if now.state == "running":
                monkeypatch.setattr(store, "write", full)
                provider.gate.set()
        return now

    assert run(provider, store, story).state == "done"


def test_what_cannot_be_written_down_is_not_sent(store, monkeypatch):
    provider = Paid()

    async def story(service, job):
        def full(*_, **__):
            raise FileProblem("the disk is full")

        monkeypatch.setattr(store, "write", full)
        return await last(service, job)

    job = run(provider, store, story)
    assert job.state == "failed"
    assert "the disk is full" in str(job.error)
    assert provider.log == []


def test_folders_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIPTYCH_HOME", str(tmp_path))
    assert config() == Config(tmp_path / "data", tmp_path / "cache", tmp_path / "config.toml")
    monkeypatch.setenv("TRIPTYCH_HOME", "relative")
    assert config().data.is_absolute()
    monkeypatch.delenv("TRIPTYCH_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "d"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "s"))
    settings = tmp_path / "s" / "triptych" / "config.toml"
    assert config() == Config(tmp_path / "d" / "triptych", tmp_path / "c" / "triptych", settings)
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        found = config()
        assert found.data != found.cache
        parts = (found.jobs, found.inputs, found.latents, found.training, found.logs)
        assert len({found.data, *parts}) == 6
        assert all(part.parent == found.data for part in parts)


def test_the_default_service_has_the_local_machine(tmp_path):
    service = default(Config(tmp_path / "data", tmp_path / "cache"))
    assert "mini-image" in service.cards()
    assert not (tmp_path / "data").exists()  # nothing is made before it is needed
