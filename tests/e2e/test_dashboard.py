"""The dashboard in a real browser, and its stream of snapshots."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
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


@pytest.fixture
def running() -> Iterator[tuple[str, str]]:
    """`evenflow dev` as a process of its own: its base_url and the root of its admin listener."""
    command = [sys.executable, "-m", "server", "dev", "--bind", "127.0.0.1:0", "--admin-bind", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        said = ""
        while not (admin := re.search(r"(http://[\d.]+:\d+)/dashboard", said)):
            line = process.stdout.readline()
            assert line, said
            said += line
        base = re.search(r"http://[\d.]+:\d+/v1", said)
        assert base is not None
        yield base[0], admin[1]
        process.terminate()


def _ask(base_url: str, model: str) -> None:
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = urllib.request.Request(f"{base_url}/chat/completions", body, {"content-type": "application/json"})
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=60) as answer:
        while answer.read1(65536):
            pass


@pytest.mark.skipif(_CHROMIUM is None, reason="no chromium on PATH (Debian: apt install chromium)")
def test_the_page_in_a_browser(running: tuple[str, str]) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    base_url, admin = running
    for model in ("stutter-a1", "flaky", "error-mid"):
        _ask(base_url, model)
    threading.Thread(target=_ask, args=(base_url, "endless:pace=20"), daemon=True).start()
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS.split())
        page = browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda problem: problems.append(str(problem)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: None if request.url.startswith((admin, "data:")) else problems.append(request.url))
        page.goto(f"{admin}/")  # a browser is sent on to the page
        api.expect(page.get_by_role("status")).to_have_text("ready")
        api.expect(page.locator("#streams tbody tr")).to_contain_text("endless")
        api.expect(page.locator("#ended details")).to_have_count(3)
        api.expect(page.locator("#happened")).to_contain_text("simulator: server_error")
        # By keyboard alone: open the last stream's timeline, force a circuit open.
        page.locator("#ended summary").first.press("Enter")
        api.expect(page.get_by_role("img", name=re.compile("Timeline of"))).to_be_visible()
        page.get_by_role("button", name="Force open: circuit of simulator").press("Enter")
        api.expect(page.locator("#circuits")).to_contain_text("forced open")
        history = page.locator("#circuits summary")
        history.press("Enter")
        api.expect(page.locator("#circuits .history li").first).to_contain_text("forced_open")
        page.get_by_role("button", name="Normal: circuit of simulator").press("Enter")
        api.expect(page.locator("#circuits")).to_contain_text("closed")
        page.get_by_role("button", name="Pause").press("Space")
        api.expect(page.get_by_role("button", name="Go on")).to_have_attribute("aria-pressed", "true")
        unnamed = "e => !(e.ariaLabel || e.textContent.trim() || e.labels?.length)"
        assert page.evaluate(f"[...document.querySelectorAll('button, input:not([hidden])')].filter({unnamed}).length") == 0
        browser.close()
    assert problems == []
