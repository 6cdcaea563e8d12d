"""The admin listener through its HTTP face, with a real circuit breaker behind it."""

from __future__ import annotations

import json
import math
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from actors.circuit_breaker import open_circuit_breaker
from actors.routes import Secret
from actors.sansio.breaker_state import MODES, BreakerPolicy
from actors.sansio.faults import Verdict
from actors.sansio.upstream_history import UpstreamHistory
from server.admin.app import create_admin_app
from server.log import register_secrets
from server.metrics import Metrics
from server.rollout import Rollout
from server.settings import StreamingSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from quart_trio import QuartTrio

    from actors.circuit_breaker import CircuitBreaker


KEY = "sk-admin-0123456789"
JSON = {"content-type": "application/json"}


class Listener:
    """The application, and what stands behind it."""

    def __init__(self, app: QuartTrio, breaker: CircuitBreaker) -> None:
        self.app = app
        self.client = app.test_client(use_cookies=False)
        self.breaker = breaker
        self.ready = True

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        response = await self.client.get(path, headers=headers)
        return response.status_code, json.loads(await response.get_data(as_text=False))

    async def post(self, path: str, body: str = "", headers: dict[str, str] | None = None) -> tuple[int, Any]:
        response = await self.client.post(path, data=body, headers=JSON if headers is None else headers)
        return response.status_code, json.loads(await response.get_data(as_text=False))

    def state(self, upstream: str) -> str:
        return self.breaker.statistics().upstreams[upstream].state


@asynccontextmanager
async def listening(*, keys: tuple[str, ...] = (), hosts: tuple[str, ...] = ()) -> AsyncGenerator[Listener, None]:
    policies = {"local": BreakerPolicy(consecutive_failures=1, jitter=0.0), "cloud": BreakerPolicy()}
    metrics = Metrics(policies)
    async with open_circuit_breaker(policies, random=lambda: 0.5, on_transition=metrics.breaker_transition) as breaker:
        metrics.watch(breaker=breaker.statistics)
        app = create_admin_app(
            metrics=metrics,
            status=lambda: {"version": "1.2.3", "secret": Secret(KEY), "timers": {"idle": math.inf}},
            breaker=breaker,
            rollout=Rollout(StreamingSettings(rollout_percent=40)),
            ready=lambda: listener.ready,
            feed=lambda after: {"serial": after + 1, "secret": Secret(KEY)},
            catch_up=trio.lowlevel.checkpoint,
            learned=lambda: {"local": UpstreamHistory().learned(0.0)},
            keys=[Secret(key) for key in keys],
            allowed_hosts=hosts,
        )
        listener = Listener(app, breaker)
        yield listener


async def open_circuit(breaker: CircuitBreaker, upstream: str) -> None:
    permit = await breaker.acquire(upstream)
    permit.ended(Verdict.FAILURE)  # type: ignore[union-attr]  # a closed circuit gives a permit
    await trio.testing.wait_all_tasks_blocked()


def assert_error(answer: tuple[int, Any], status: int, code: str) -> str:
    """The answer is an error in OpenAI's form; gives its message."""
    assert answer[0] == status, answer
    error = answer[1]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    return str(error["message"])


async def test_metrics_can_be_scraped_in_both_formats() -> None:
    async with listening() as admin:
        response = await admin.client.get("/metrics")
        families = {f.name for f in text_string_to_metric_families((await response.get_data(as_text=False)).decode())}
        assert {"evenflow_streams", "evenflow_breaker_state", "process_open_fds"} <= families
        assert response.content_type is not None
        assert response.content_type.startswith("text/plain")
        response = await admin.client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
        assert (await response.get_data(as_text=False)).endswith(b"# EOF\n")


async def test_status_shows_what_it_is_given_and_every_circuit(autojump_clock: trio.testing.MockClock) -> None:
    async with listening() as admin:
        await open_circuit(admin.breaker, "local")
        await trio.sleep(1.25)
        status, document = await admin.get("/status")
    assert status == 200
    assert document["version"] == "1.2.3"
    assert document["timers"] == {"idle": None}
    circuits = document["upstreams"]
    assert list(circuits) == ["local", "cloud"]
    assert (circuits["local"]["state"], circuits["local"]["openings"], circuits["cloud"]["state"]) == ("open", 1, "closed")
    assert circuits["local"]["seconds_left"] == 3.8  # of 5 s
    assert circuits["local"]["stutter"] == {"streams": 0, "proven": {}, "refuted": 0, "prior": 0.0, "last_proof_age": None}
    assert document["breaker"]["retry_budget"]["refused"] == 0
    assert "upstreams" not in document["breaker"]


async def test_status_shows_no_secret() -> None:
    register_secrets(["canary-in-a-status"])
    async with listening() as admin:
        response = await admin.client.get("/status")
        assert KEY not in (await response.get_data(as_text=False)).decode()
        response = await admin.client.get("/canary-in-a-status")
        assert b"canary" not in await response.get_data(as_text=False)


async def test_readiness_follows_the_process() -> None:
    async with listening() as admin:
        assert await admin.get("/healthz") == (200, {"status": "ok"})
        assert await admin.get("/readyz") == (200, {"status": "ready"})
        admin.ready = False
        assert_error(await admin.get("/readyz"), 503, "not_ready")
        assert await admin.get("/healthz") == (200, {"status": "ok"})


async def test_a_circuit_is_reset() -> None:
    async with listening() as admin:
        await open_circuit(admin.breaker, "local")
        assert admin.state("local") == "open"
        status, circuit = await admin.post("/breaker/local/reset")
        assert (status, circuit["upstream"], circuit["state"]) == (200, "local", "closed")
        assert admin.state("local") == "closed"


@pytest.mark.parametrize(
    ("mode", "state"), [("forced_open", "forced_open"), ("disabled", "disabled"), ("metrics_only", "metrics_only"), ("on", "closed")]
)
async def test_a_circuit_is_forced(mode: str, state: str) -> None:
    assert mode in MODES
    async with listening() as admin:
        await open_circuit(admin.breaker, "local")
        await admin.breaker.force("local", "metrics_only" if mode != "metrics_only" else "disabled")
        status, circuit = await admin.post("/breaker/local/force", json.dumps({"state": mode}))
        assert (status, circuit["state"]) == (200, state)
        assert admin.state("local") == state
        assert admin.state("cloud") == "closed"


@pytest.mark.parametrize(
    "body",
    ["", "{}", "[]", "null", '{"state": "ajar"}', '{"state": null}', '{"state": "on", "for": 5}', '{"state": "on"', "\ud83d", "[" * 4000],
)
async def test_a_bad_state_is_refused_and_changes_nothing(body: str) -> None:
    async with listening() as admin:
        await open_circuit(admin.breaker, "local")
        answer = await admin.post("/breaker/local/force", body.encode("utf-8", "surrogatepass").decode("latin-1"))
        message = assert_error(answer, 400, "invalid_state")
        assert all(f'"{mode}"' in message for mode in MODES)
        assert admin.state("local") == "open"


async def test_a_body_too_long_is_refused() -> None:
    async with listening() as admin:
        assert_error(await admin.post("/breaker/local/force", " " * 5000), 413, "request_entity_too_large")


@pytest.mark.parametrize(("path", "body"), [("reset", ""), ("force", '{"state": "on"}')])
async def test_an_unknown_upstream_is_answered_with_those_that_exist(path: str, body: str) -> None:
    async with listening() as admin:
        message = assert_error(await admin.post(f"/breaker/%1b[2Jnone/{path}", body), 404, "upstream_not_found")
        assert "'local'" in message
        assert "'cloud'" in message
        assert "\x1b" not in message


async def test_a_breaker_that_is_gone_is_said() -> None:
    async with listening() as admin:
        pass
    assert_error(await admin.post("/breaker/local/reset"), 503, "breaker_gone")


@pytest.mark.parametrize("path", ["/breaker/local/reset", "/breaker/local/force"])
async def test_changes_need_post_and_say_so(path: str) -> None:
    async with listening() as admin:
        response = await admin.client.get(path)
        assert response.status_code == 405
        assert "POST" in response.headers["allow"]
        assert json.loads(await response.get_data(as_text=False))["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"])
async def test_what_a_plain_form_can_send_changes_nothing(content_type: str | None) -> None:
    async with listening() as admin:
        await open_circuit(admin.breaker, "local")
        headers = {} if content_type is None else {"content-type": content_type}
        assert_error(await admin.post("/breaker/local/reset", headers=headers), 415, "unsupported_media_type")
        assert admin.state("local") == "open"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:8144", True),
        ("https://localhost:8144", True),
        ("http://localhost:3000", False),
        ("http://evil.example", False),
        ("http://localhost:8144.evil.example", False),
        ("null", False),
        ("", False),
    ],
)
async def test_another_pages_origin_changes_nothing(origin: str, allowed: bool) -> None:
    async with listening() as admin:
        await open_circuit(admin.breaker, "local")
        answer = await admin.post("/breaker/local/reset", headers=JSON | {"host": "localhost:8144", "origin": origin})
        if allowed:
            assert answer[0] == 200
        else:
            assert_error(answer, 403, "foreign_origin")
        assert admin.state("local") == ("closed" if allowed else "open")


LOOPBACK = ["localhost", "host.docker.internal:8144", "LOCALHOST:8144", "127.0.0.1:8144", "127.9.9.9", "[::1]:8144", "[::1]"]
FOREIGN = [
    "evil.example",
    "localhost.evil.example:8144",
    "127.0.0.1.evil.example",
    "evil@localhost",
    "localhost/x",
    "",
    "[::1",
    "localhost:x",
]


@pytest.mark.parametrize(
    ("host", "keys", "allowed"),
    [
        *((host, (), True) for host in LOOPBACK),
        *((host, (), False) for host in FOREIGN),
        *((host, (KEY,), False) for host in FOREIGN),
        ("10.0.0.5:8144", (), False),
        ("10.0.0.5:8144", (KEY,), True),
        ("[2001:db8::1]", (KEY,), True),
        ("ops.internal:8144", (), True),
        ("OPS.internal", (KEY,), True),
    ],
)
async def test_the_listener_answers_to_its_own_names_only(host: str, keys: tuple[str, ...], allowed: bool) -> None:
    async with listening(keys=keys, hosts=("ops.Internal",)) as admin:
        answer = await admin.get("/status", {"host": host, "x-api-key": KEY})
        if allowed:
            assert answer[0] == 200
        else:
            assert_error(answer, 421, "wrong_host")


async def test_with_keys_everything_but_the_probes_needs_one() -> None:
    async with listening(keys=("sk-other-9876543210", KEY)) as admin:
        for path in ("/", "/metrics", "/status", "/breaker/local/reset", "/nowhere"):
            response = await admin.client.get(path, headers={"authorization": f"Bearer {KEY}x"})
            assert response.status_code == 401
            assert response.headers["www-authenticate"].startswith("Bearer")
            assert_error((401, json.loads(await response.get_data(as_text=False))), 401, "invalid_api_key")
        assert_error(await admin.post("/breaker/local/force", '{"state": "forced_open"}'), 401, "invalid_api_key")
        assert admin.state("local") == "closed"
        assert (await admin.get("/status", {"authorization": f"Bearer {KEY}"}))[0] == 200
        for probe in ("/healthz", "/readyz"):
            assert (await admin.get(probe, {"host": "10.1.2.3:8144"}))[0] == 200


async def test_50_whatever_does_not_exist_is_a_json_404() -> None:
    async with listening() as admin:
        for path in ("/nowhere", "/breaker/local", "/breaker/a/b/reset", "/v1/models"):
            assert_error(await admin.get(path), 404, "not_found")


async def test_the_index_tells_how_to_use_it() -> None:
    async with listening() as admin:
        response = await admin.client.get("/", headers={"host": "127.0.0.1:9999"})
        text = (await response.get_data(as_text=False)).decode()
    assert response.mimetype == "text/plain"
    assert "curl http://127.0.0.1:9999/status" in text
    assert """-d '{"state": "forced_open"}' http://127.0.0.1:9999/breaker/UPSTREAM/force""" in text
    assert all(mode in text for mode in MODES)


async def test_answers_are_neither_cached_nor_guessed_at() -> None:
    async with listening() as admin:
        for path in ("/", "/status", "/metrics", "/nowhere"):
            response = await admin.client.get(path)
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in response.headers


async def test_a_failure_inside_is_a_json_500_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async with open_circuit_breaker({}) as breaker:

        def fail() -> dict[str, object]:
            raise RuntimeError("details for the log alone")

        app = create_admin_app(
            metrics=Metrics([]),
            status=fail,
            breaker=breaker,
            rollout=Rollout(StreamingSettings()),
            ready=lambda: True,
            feed=lambda _: {"serial": 0},
            catch_up=trio.lowlevel.checkpoint,
        )
        response = await app.test_client(use_cookies=False).get("/status")
        body = (await response.get_data(as_text=False)).decode()
    assert_error((response.status_code, json.loads(body)), 500, "internal_server_error")
    assert "details" not in body
    assert "details for the log alone" in caplog.text


async def test_every_address_is_documented() -> None:
    documented = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    async with listening() as admin:
        rules = list(admin.app.url_map.iter_rules())
    addresses = {(m, r.rule.replace("<", "{").replace(">", "}")) for r in rules for m in (r.methods or set()) - {"HEAD", "OPTIONS"}}
    assert len(addresses) == 16
    assert all(f"| `{method} {path}` |" in documented for method, path in addresses)


async def test_the_share_of_the_actors_can_be_changed_while_it_runs() -> None:
    async with listening() as admin:
        assert (await admin.get("/rollout"))[1]["percent"] == 40
        status, report = await admin.post("/rollout", '{"percent": 2.5}')
        assert (status, report["percent"]) == (200, 2.5)
        assert (await admin.get("/rollout"))[1]["percent"] == 2.5
        for body in ('{"percent": 101}', '{"percent": -1}', '{"percent": "all"}', "{}", "", "[" * 3000):
            assert "0 to 100" in assert_error(await admin.post("/rollout", body), 400, "invalid_percent")
        assert (await admin.get("/rollout"))[1]["percent"] == 2.5


async def test_the_page_needs_no_key_and_what_it_reads_does() -> None:
    async with listening(keys=("an-admin-key-0123",)) as admin:
        for path in ("/dashboard", "/dashboard.css", "/dashboard.js", "/drawings.js", "/icon.svg"):
            response = await admin.client.get(path)
            assert response.status_code == 200
            assert "default-src 'self'" in response.headers["content-security-policy"]
            page = (await response.get_data(as_text=False)).decode()
            assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
            assert "https://" not in page
        assert_error(await admin.get("/dashboard/events"), 401, "invalid_api_key")
        assert_error(await admin.get("/dashboard", {"host": "evil.example"}), 421, "wrong_host")
        for headers, status in (({}, 401), ({"authorization": "Bearer an-admin-key-0123"}, 200)):
            assert (await admin.client.head("/dashboard/events", headers=headers)).status_code == status  # ends at once


async def test_a_browser_is_sent_to_the_page_and_curl_is_not() -> None:
    async with listening() as admin:
        response = await admin.client.get("/", headers={"accept": "text/html,*/*"})
        assert (response.status_code, response.headers["location"]) == (302, "dashboard")
        response = await admin.client.get("/", headers={"accept": "*/*"})
        assert response.status_code == 200
