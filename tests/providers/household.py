"""One user's machine for the tests of misbehaving vendors: a data folder, a service over it, what must always hold."""

import asyncio
import base64
import json
import traceback
from urllib.parse import quote

from emulated import Waits
from loopback import KEY, account

from triptych.media import read_recipe
from triptych.providers.remote import Remote
from triptych.providers.wire.http import Pace
from triptych.service import Service
from triptych.service.budgets import Budgets
from triptych.service.jobs import Store
from triptych.service.ledger import Ledger
from triptych.service.purse import Purse

SECRETS = (KEY, quote(KEY, safe=""), base64.b64encode(KEY.encode()).decode(), KEY[:20])


class Household:
    """budget: US dollars a day; tries: of what may be asked again."""

    def __init__(self, vendor, folder, budget=None, tries=4, **rest):
        self.vendor, self.folder = vendor, folder
        self.waits = Waits()
        self.pace = Pace(tries=tries, first=0.001, most=0.002, patience=60.0, poll=0.001, wait=self.waits)
        settings = {**vendor.settings(), **rest.pop("settings", {})}
        self.account = account(vendor.name, vendor.there.url, settings=settings, **rest)
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.budget = budget
        self.problems = []

    def service(self):
        """As a process that has just begun."""
        provider = Remote(
            self.vendor.vendor(lambda: self.account), lambda: self.account, self.folder / "remote", self.pace
        )
        purse = Purse(self.ledger, lambda: Budgets(day=self.budget), lambda: None, lambda: "")
        return Service([provider], Store(self.folder / "jobs", self.folder / "inputs"), purse)

    def make(self, request=None, seen=None):
        """The job of a request, at its end. seen: gets every state it was in."""

        async def made():
            service = self.service()
            job = await service.submit(request or self.vendor.request(), unpriced=True)
            return await self._end(service, job.id, seen)

        return self._noted(asyncio.run(made()))

    def resume(self, id):
        """The job as a later process ends it."""

        async def resumed():
            service = self.service()
            return await self._end(service, (await service.resume(id)).id, None)

        return self._noted(asyncio.run(resumed()))

    def found(self, id):
        """The job as a later process finds it."""
        return self.service().job(id)

    def line(self, id):
        return self.ledger.line(id)

    async def _end(self, service, id, seen):
        async for job in service.watch(id):
            if seen is not None:
                seen.append((job.state, job.progress))
        return job

    def _noted(self, job):
        if job.error is not None:
            self.problems.append(job.error)
        return job

    # what must hold, whatever happened

    def check(self, logged="", killed=False):
        """No key anywhere, nothing astray, no file that is half of one."""
        told = [text for problem in self.problems for text in _all_words(problem)]
        shown = [secret for secret in SECRETS for text in (*told, logged) if secret in text]
        assert not shown, "the key is shown"
        for path in self.folder.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                assert not any(secret.encode() in data for secret in SECRETS), f"the key is in {path}"
                assert killed or not path.name.startswith(".triptych-"), f"{path} was left over"
        assert not self.vendor.keys_astray(), "a stranger has the key"

    def whole(self):
        """Every file that was fetched is what the vendor made, and every part the beginning of it."""
        for path in (self.folder / "remote").glob("*/[0-9]*"):
            data = path.read_bytes()
            if path.suffix == ".part":
                assert self.vendor.data.startswith(data)
            else:
                assert data == self.vendor.data


def _all_words(problem):
    """All that an error says of itself, and of what led to it, however it is looked at."""
    yield "".join(traceback.format_exception(problem))
    while problem is not None:
        yield str(problem)
        yield repr(problem)
        yield repr(problem.args)
        problem = problem.__cause__ or problem.__context__


def delivered(job, vendor):
    """The job is done, and what came is what the vendor made, with the recipe inside."""
    assert job.state == "done", (job.state, job.error)
    [artifact] = job.result.artifacts
    told = read_recipe(artifact.data, "the result")
    assert KEY.encode() not in artifact.data
    assert told["model"]["provider"] == vendor.name
    assert not any(secret in json.dumps(told) for secret in SECRETS)
    return artifact
