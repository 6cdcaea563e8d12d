"""The dashboard in a real browser, and its stream of snapshots."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio

from server.main import open_proxy

from .raw_client import PATIENCE, RawClient
from .running_proxy import RunningProxy, running_proxy, settings_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.simulator import Simulator

_CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
#: Nothing here needs the world, and without these Chromium asks for it at every start.
_FLAGS: Final = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
)


async def _snapshot(proxy: RunningProxy) -> dict[str, Any]:
    admin = RawClient(proxy.proxy.admin_url, None)
    async with admin.send("GET", "/dashboard/events", b"", {}) as exchange:
        told = await exchange.read_until(b"\n\n")
    found = re.search(rb"data: (\{.*\})\n\n", told, re.DOTALL)
    assert found is not None, told[:300]
    document: dict[str, Any] = json.loads(found[1])
    return document


async def test_a_snapshot_tells_of_streams_that_run_and_that_ended(simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}), simulator) as proxy:
        await proxy.client.ask("stutter-a1")
        await proxy.client.ask("flaky")
        async with proxy.client.open("count:count=2000,pace=10") as stream:
            await stream.read_until(b"data:")
            told = await _snapshot(proxy)
        assert told["states"] == {"normal flow": 1}
        [live] = told["streams"]
        assert (live["model"], live["upstream"], live["attempts"]) == ("count:count=2000,pace=10", "main", 1)
        stutter, flaky = told["ended"]
        assert stutter["repairs"].startswith("A1:")
        assert [kind for _, kind, _ in flaky["story"] if kind in ("fault", "retry", "attempt")] == ["fault", "retry", "attempt"]
        assert [circuit["name"] for circuit in told["circuits"]] == ["main"]


async def test_a_viewer_that_stays_does_not_hold_up_the_end(simulator: Simulator) -> None:
    with trio.fail_after(PATIENCE):
        async with open_proxy(settings_for({"main": simulator})) as proxy, AsyncExitStack() as viewers:
            watching = await viewers.enter_async_context(RawClient(proxy.admin_url, None).send("GET", "/dashboard/events", b"", {}))
            await watching.read_until(b"\n\n")
            still_there = viewers.pop_all()
    await still_there.aclose()


async def test_viewers_that_leave_at_any_moment_leave_their_places(simulator: Simulator) -> None:
    """Also before the first byte of their stream, and with nothing left to the garbage collector."""
    async with running_proxy(settings_for({"main": simulator}), simulator) as proxy:
        admin = RawClient(proxy.proxy.admin_url, None)
        for passes in range(40):  # of the event loop; five times as many viewers as there are places
            async with admin.send("GET", "/dashboard/events") as exchange:
                for _ in range(passes):
                    await trio.lowlevel.checkpoint()
                await exchange.reset()
            await proxy.until_quiet()
        gc.collect()

        async def let_in() -> bool:
            async with admin.send("GET", "/dashboard/events") as exchange:
                return (await exchange.read_until(b"\r\n")).startswith(b"HTTP/1.1 200 ")

        # A thread at the listener's door hands connections on, on a slow machine perhaps some of those that were reset only now.
        with trio.fail_after(PATIENCE):
            while not await let_in():
                pass
        assert (await _snapshot(proxy))["streams_active"] == 0


@contextlib.contextmanager
def _process(*arguments: str, says: str, stderr: int = subprocess.DEVNULL) -> Iterator[re.Match[str]]:
    """`evenflow ARGUMENTS` on free ports; what it said that `says` matches. It says everything else before."""
    command = [sys.executable, "-m", "server", *arguments]
    environment = os.environ | {"EVENFLOW_DRAIN": "0"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            said = ""
            while (found := re.search(says, said)) is None:
                line = process.stdout.readline()
                assert line, said
                said += line
            yield found
        finally:
            process.terminate()


_FREE: Final = ("--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0")
#: Its base_url and the root of its admin listener.
_SAYS: Final = r"(?s)(http://[\d.]+:\d+/v1).*?(http://[\d.]+:\d+)/dashboard"


@pytest.fixture
def running() -> Iterator[re.Match[str]]:
    """`evenflow dev` as a process of its own."""
    with _process("dev", *_FREE, says=_SAYS) as said:
        yield said


@pytest.fixture
def running_two() -> Iterator[re.Match[str]]:
    """Two workers before a simulator."""
    with (
        _process("simulate", "--bind", "127.0.0.1:0", says=r"http://[\d.]+:\d+/v1", stderr=subprocess.STDOUT) as simulator,
        _process("serve", "--workers", "2", "--upstream", simulator[0], *_FREE, says=_SAYS) as said,
    ):
        yield said


def _ask(base_url: str, model: str) -> None:
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = urllib.request.Request(f"{base_url}/chat/completions", body, {"content-type": "application/json"})
    with contextlib.suppress(OSError, http.client.HTTPException), urllib.request.urlopen(request, timeout=60) as answer:
        while answer.read1(65536):
            pass


@contextlib.contextmanager
def _browsing(admin: str) -> Iterator[tuple[Any, Any]]:
    """Playwright's `expect` and a page that must not fail, nor ask anybody else for anything."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS.split())
        page = browser.new_page()
        page.set_default_timeout(_MILLISECONDS)
        api.expect.set_options(timeout=_MILLISECONDS)
        problems: list[str] = []
        page.on("pageerror", lambda problem: problems.append(str(problem)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: None if request.url.startswith((admin, "data:")) else problems.append(request.url))
        yield api.expect, page
        api.expect.set_options(timeout=None)
        browser.close()
    assert problems == []


#: For each thing that is expected of a browser, which is four processes more on a machine that may be slow; 5 s as Playwright has it.
_MILLISECONDS: Final = 60_000
_in_a_browser: Final = pytest.mark.skipif(_CHROMIUM is None, reason="no chromium on PATH (Debian: apt install chromium)")


@_in_a_browser
def test_the_page_in_a_browser(running: re.Match[str]) -> None:
    base_url, admin = running.groups()
    for model in ("stutter-a1", "flaky", "error-mid"):
        _ask(base_url, model)
    threading.Thread(target=_ask, args=(base_url, "endless:pace=20"), daemon=True).start()
    with _browsing(admin) as (expect, page):
        page.goto(f"{admin}/")  # a browser is sent on to the page
        expect(page.get_by_role("status")).to_have_text("ready")
        expect(page.locator("#streams tbody tr")).to_contain_text("endless")
        expect(page.locator("#ended details")).to_have_count(3)
        expect(page.locator("#happened")).to_contain_text("simulator: server_error")
        expect(page.get_by_role("columnheader", name="Worker")).to_have_count(0)
        # By keyboard alone: open the last stream's timeline, force a circuit open.
        page.locator("#ended summary").first.press("Enter")
        expect(page.get_by_role("img", name=re.compile("Timeline of"))).to_be_visible()
        page.get_by_role("button", name="Force open: circuit of simulator").press("Enter")
        expect(page.locator("#circuits")).to_contain_text("forced open")
        history = page.locator("#circuits summary")
        history.press("Enter")
        expect(page.locator("#circuits .history li").first).to_contain_text("forced_open")
        page.get_by_role("button", name="Normal: circuit of simulator").press("Enter")
        expect(page.locator("#circuits")).to_contain_text("closed")
        page.get_by_role("button", name="Pause").press("Space")
        expect(page.get_by_role("button", name="Go on")).to_have_attribute("aria-pressed", "true")
        unnamed = "e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length)"
        assert page.evaluate(f"[...document.querySelectorAll('button, input:not([hidden])')].filter({unnamed}).length") == 0


@_in_a_browser
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no workers there")
def test_the_page_of_two_workers_in_a_browser(running_two: re.Match[str]) -> None:
    base_url, admin = running_two.groups()
    _ask(base_url, "stutter-a1")
    threading.Thread(target=_ask, args=(base_url, "endless:pace=20"), daemon=True).start()
    with _browsing(admin) as (expect, page):
        page.goto(f"{admin}/")
        expect(page.get_by_role("status")).to_have_text("ready")
        expect(page.locator("#streams tbody tr")).to_have_text(re.compile(r"normal flow[12]endless"))
        workers = page.get_by_role("list", name="Workers").get_by_role("listitem")
        expect(workers).to_have_count(2)
        expect(workers.first).to_contain_text("worker 1: serving")
        page.locator("#ended summary").press("Enter")
        expect(page.locator("#ended .story")).to_contain_text("A1")
        expect(page.locator("#ended")).to_contain_text(re.compile(r"request \S+, worker [12], ended"))
        # One row for the upstream; the button acts on both, each of which says so.
        page.get_by_role("button", name="Force open: circuit of default at every worker").press("Enter")
        expect(page.locator("#circuits tbody tr")).to_have_count(1)
        expect(page.locator("#circuits tbody td").first).to_have_text("forced open")
        page.locator("#circuits summary").press("Enter")
        expect(page.locator("#circuits .history")).to_contain_text(re.compile(r"worker 1: forced open.*worker 2: forced open", re.DOTALL))
        # The circuit of one alone stands beside that of the other: it was started again, and forgot.
        [victim] = page.evaluate("[...document.querySelectorAll('#workers li')].slice(0, 1).map((one) => Number(one.title.split(' ')[1]))")
        os.kill(victim, signal.SIGKILL)
        expect(workers.first).to_contain_text("started again")
        expect(page.locator("#circuits tbody td").first).to_have_text(re.compile("closed worker 1 forced open worker 2"))
        expect(page.get_by_role("status")).to_have_text("ready")
