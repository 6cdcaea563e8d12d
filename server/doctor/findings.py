"""What was seen at an upstream -> sentences for its operator, and a profile to paste into the configuration.

Every sentence about trouble says what to do about it, or that evenflow deals with it. Waits for nothing, prints nothing.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .observation import Habits
    from .probes import Examination

Level: TypeAlias = Literal["good", "note", "bad"]
Profile: TypeAlias = "dict[str, str | float | int | list[str]]"

#: Fewer events than this say nothing about who collects them.
_FEW_EVENTS: Final = 8
#: A first token later than this half of the default hedge: worth a setting of its own.
_SLOW_FIRST_TOKEN: Final = 8.0
_LISTED_MODELS: Final = 20
_CREDENTIALS: Final = frozenset({401, 402, 403})
#: Hosts whose habits are known. Source: STUTTER section 2, the reports about each.
_PROFILES: Final = {"aliyuncs.com": "dashscope", "portal.qwen.ai": "portal"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was seen.

    Args:
      level: "good" is as it should be, "note" is dealt with or only worth knowing, "bad" needs somebody.
      topic: one word, for scripts.
      what: a sentence.
      remedy: what to do, "" if nothing has to be done.
    """

    level: Level
    topic: str
    what: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All of it.

    Args:
      profile: settings of `[upstreams.NAME]` that suit what was seen, by their names there.
    """

    upstream: str
    findings: list[Finding]
    profile: Profile

    @property
    def healthy(self) -> bool:
        return all(finding.level != "bad" for finding in self.findings)

    def toml(self) -> str:
        """The profile as a table of the configuration file. A text of JSON is one of TOML."""
        name = self.upstream if self.upstream.replace("-", "").replace("_", "").isalnum() else json.dumps(self.upstream)
        return "".join(
            [f"[upstreams.{name}]\n", *(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in self.profile.items())]
        )


def diagnose(found: Examination, keys: Mapping[str, str]) -> Diagnosis:
    """Put an examination into words.

    Args:
      keys: where the credential is found (key_env, key_file, auth), which belongs into the profile as it is.
    """
    upstream = found.upstream
    profile: Profile = {"base_url": upstream.base_url, **keys}
    if upstream.http2:
        profile["http2"] = True
    host = urlsplit(upstream.base_url).hostname or ""
    for known, habits in _PROFILES.items():
        if host == known or host.endswith(f".{known}"):
            profile["stutter.profile"] = habits
    findings = _way_there(found)
    if found.unreachable:
        return Diagnosis(upstream.name, findings, profile)
    if found.models and len(found.models) <= _LISTED_MODELS:
        profile["models"] = list(found.models)
    if found.slots is not None:
        profile["slots"] = found.slots
        findings.append(
            Finding("note", "slots", f"it serves {found.slots} at once; with `slots = {found.slots}` the others wait in a fair line")
        )
    if found.refused:
        findings.append(_refusal(found))
    if found.habits is not None:
        findings += _wire(found.habits) + _text(found.habits) + _pace(found.habits, profile)
    findings += _leaving(found) + _continuation(found, profile)
    findings += [Finding("note", "probe", failure) for failure in found.failures]
    return Diagnosis(upstream.name, findings, profile)


def _way_there(found: Examination) -> list[Finding]:
    if found.unreachable:
        remedy = "check base_url, that the server runs, and that this machine may reach it (firewall, proxy, name)"
        return [Finding("bad", "reach", f"{found.upstream.base_url} cannot be reached: {found.unreachable}", remedy)]
    findings = [Finding("good", "reach", f"reached in {_time(found.reached)} over {found.version}")]
    if found.upstream.http2 and found.version != "HTTP/2":
        findings.append(Finding("note", "http2", "does not speak HTTP/2, which is asked for; it is used over HTTP/1.1", "take http2 out"))
    match found.models_status:
        case 200 if found.models:
            findings.append(Finding("good", "models", f"lists {_counted(len(found.models), 'model')}"))
        case 200:
            findings.append(Finding("note", "models", "GET /models lists none", "name them in `models`, so that clients see them"))
        case 404 | 405:
            remedy = "is the path of base_url right? Most end in /v1. If it is, name its models in `models`"
            findings.append(Finding("note", "models", f"GET /models is answered with {found.models_status}", remedy))
        case status if status in _CREDENTIALS:
            findings.append(Finding("bad", "auth", f"the key is refused (GET /models: {status})", _about_key(found)))
        case status:
            findings.append(Finding("note", "models", f"GET /models is answered with {status}"))
    return findings


def _about_key(found: Examination) -> str:
    if found.upstream.auth == "client":
        return 'auth = "client" sends what the client sent, and the doctor has no key of its own; this proves nothing'
    if found.upstream.key is None:
        return "no key is configured: set key_env to the name of the environment variable that holds it, or key_file"
    return "the configured key is wrong, expired, or for another base_url; DashScope's keys for the mainland and abroad differ, for one"


def _refusal(found: Examination) -> Finding:
    if found.status in _CREDENTIALS:
        return Finding(
            "bad", "auth", f"the key may not be used for a stream of {found.model}: HTTP {found.status}: {found.refused}", _about_key(found)
        )
    if found.status == 404:
        return Finding("bad", "model", f"no stream of {found.model}: {found.refused}", "choose a model it has, with --model NAME")
    if found.status == 429:
        return Finding(
            "bad", "quota", f"asked too often: {found.refused}", "wait, or look at the plan's limits; evenflow obeys Retry-After"
        )
    if found.status:
        return Finding(
            "bad",
            "stream",
            f"a plain request for a stream is answered with HTTP {found.status}: {found.refused}",
            "its own log may say why",
        )
    return Finding(
        "bad",
        "stream",
        f"a plain request for a stream got no answer: {found.refused}",
        "its own log may say why; a model that is loaded first takes its time: --timeout",
    )


def _wire(habits: Habits) -> list[Finding]:
    findings = []
    if habits.error:
        findings.append(Finding("bad", "stream", f"HTTP 200, and inside the stream the error {habits.error!r}", "its own log may say why"))
    if habits.malformed:
        findings.append(
            Finding("bad", "format", f"an event that no client could read: {habits.malformed}", "report it to the server's makers")
        )
    if habits.encoding not in ("", "identity"):
        remedy = "something between here and there compresses; switch that off, since it collects events"
        findings.append(Finding("bad", "encoding", f"content-encoding {habits.encoding} although identity was asked for", remedy))
    if habits.content_type.partition(";")[0].strip().lower() != "text/event-stream":
        findings.append(
            Finding("note", "content-type", f"a stream under the content type {habits.content_type!r}; evenflow sends text/event-stream")
        )
    if habits.carriage_returns:
        findings.append(Finding("note", "line-ends", "lines end in CR LF; as valid as LF, and passed on as they come"))
    if habits.comments:
        findings.append(
            Finding("note", "comments", f"{_counted(habits.comments, 'comment line')} between the events; none of them counts as a token")
        )
    if not habits.complete and not habits.done:
        remedy = "evenflow tells its clients of each cut; look for a proxy or timer between here and there"
        findings.append(Finding("bad", "end", "the answer was cut: neither [DONE] nor the end of the HTTP body came", remedy))
    elif habits.done:
        findings.append(Finding("good", "end", "ends with [DONE]"))
    elif habits.finished:
        findings.append(Finding("note", "end", "ends without [DONE]; evenflow adds it where every choice has its finish_reason"))
    elif habits.text_events:
        remedy = "evenflow reports such a stream as cut, for nothing tells it from one; a newer server may do better"
        findings.append(Finding("bad", "end", "ends with neither [DONE] nor a finish_reason", remedy))
    return findings


def _text(habits: Habits) -> list[Finding]:
    if not habits.text_events:
        return (
            []
            if habits.error
            else [Finding("bad", "text", "the stream brought no text", "try another --model; an embedding model cannot chat")]
        )
    findings = []
    if habits.repairs:
        shapes = ", ".join(sorted(habits.repairs))
        findings.append(
            Finding(
                "note",
                "stutter",
                f"it stutters ({shapes}): evenflow repaired {_counted(sum(habits.repairs.values()), 'event')}",
                "leave stutter.mode on repair",
            )
        )
    else:
        findings.append(Finding("good", "stutter", "nothing came twice"))
    if habits.counted == habits.text_events:
        findings.append(Finding("good", "usage", "every event tells the tokens so far: repeats can be proven"))
    elif habits.completion_tokens is None:
        findings.append(Finding("note", "usage", "tells no usage, though asked for it with stream_options.include_usage"))
    if habits.reasoning:
        findings.append(Finding("good", "reasoning", "reasons in a field of its own"))
    return findings


def _pace(habits: Habits, profile: Profile) -> list[Finding]:
    if not habits.text_events:
        return []
    findings = [Finding("good", "first-token", f"first token after {_time(habits.first_token)}")]
    if habits.first_token > _SLOW_FIRST_TOKEN:
        profile["timers.first_token"] = float(max(60, math.ceil(10 * habits.first_token / 60) * 60))
        findings[0] = Finding(
            "note", "first-token", f"first token after {_time(habits.first_token)}: slow, perhaps a model that had to be loaded first"
        )
    if habits.reads == 1 and habits.text_events >= _FEW_EVENTS:
        remedy = "look for a proxy in between that buffers (nginx: proxy_buffering off), or a gateway that only pretends to stream"
        findings.append(Finding("bad", "buffering", f"all {habits.text_events} events came at once", remedy))
    elif (took := habits.last_token - habits.first_token) > 0:
        findings.append(Finding("good", "pace", f"{(habits.text_events - 1) / took:.0f} events a second"))
    return findings


def _leaving(found: Examination) -> list[Finding]:
    if (left := found.leaving) is None:
        return []
    if left.stopped:
        return [Finding("good", "disconnect", "stops generating when its client leaves")]
    if left.stopped is None:
        told = (
            f"nothing shows that it goes on when its client leaves (the next answer began after {_time(left.seconds)}); "
            "it says nothing of what it runs"
        )
        return [Finding("note", "disconnect", told)]
    remedy = "evenflow closes the connection at once, but what is generated is paid for; bound it with max_tokens, or update the server"
    how = {"metrics": "by its own metrics", "slots": "by its own slots", "wait": f"the next answer had to wait {_time(left.seconds)}"}
    return [Finding("bad", "disconnect", f"goes on generating when its client leaves ({how[left.seen_by]})", remedy)]


def _continuation(found: Examination, profile: Profile) -> list[Finding]:
    if found.continues is None:
        return []
    configured = found.upstream.continuation
    if not found.continues:
        bad = configured != "none"
        remedy = (
            'set continuation = "none", else resume = "prefix" asks in vain'
            if bad
            else 'a cut answer can still be resumed with resume = "align"'
        )
        return [Finding("bad" if bad else "note", "prefix", "does not go on from the beginning of an answer", remedy)]
    way = configured if configured in found.continues else found.continues[0]
    profile["continuation"] = way
    return [
        Finding("good", "prefix", f'goes on from the beginning of an answer (continuation = "{way}"): resume = "prefix" can save a cut one')
    ]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
