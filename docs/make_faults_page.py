"""Writes docs/faults.md, what must happen in each fault and which tests show it: `python docs/make_faults_page.py`.

The rows and the words for them are here; the tests are found by their names. A test carries the number of its row in its name
(`test_row_12b_...`, `test_rows_16_and_17_...`) or in the id of a case (`row_19 reset`); the few that belong to a row and do not say so are
listed in `ALSO`. tests/test_faults_page.py holds the page to the tests there are.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parent.parent

#: What each row is, in the order of the page: a heading, then the rows under it.
ROWS: Final[dict[str, dict[str, str]]] = {
    "The upstream": {
        "1": "connection refused: the next upstream, or a 502 `upstream_connect_error`",
        "2": "its name does not resolve: 502 `upstream_dns_error`",
        "3": "a certificate that is expired, of another name or of an unknown authority, or no TLS at all: 502 `upstream_tls_error`, not repeated",
        "4": "it accepts and is silent: tried again, or a 504 when the timer for the first token fires",
        "5": "a head that comes a byte at a time: the timer fires all the same",
        "6": "400, 404, 422: the client's own mistake, passed unchanged and not repeated",
        "7": "401, 402, 403: the upstream's credential is at fault; no key in the answer",
        "8": "429 with `Retry-After`: waited for, taken elsewhere, or passed with its header; no failure for the breaker",
        "9": "`Retry-After` as a date, in the past, absurd or unreadable: clamped",
        "10": "500, 502, 503, 504, 529: tried again before output, else passed on as JSON",
        "11": "an HTML page as an error: its status is kept, the body becomes JSON",
        "12": "a JSON error under a 200: an error, never an empty success",
        "12b": "an `error` field instead of `data`: ends the stream, its text reaches the client",
        "13": "a real stream under a wrong content type or none: streamed, and told once per upstream",
        "14": "a redirect: 502 `upstream_redirect`, not followed",
        "15": "an event that is no JSON: skipped if it can have carried no output, otherwise the attempt has failed; never shown",
        "16": "JSON cut off at the end of the body: resumed, or the error `upstream_truncated`",
        "17": "the body ends before the answer does: the same",
        "18": "the answer has finished, only `[DONE]` is missing: it is added",
        "19": "a reset in mid-stream: resumed, or the error `upstream_disconnected` behind all text so far",
        "20": "broken chunked framing: the same",
        "21": "a compressed body nobody asked for: 502, never binary to the client",
        "22": "one huge event: passes within the limit and takes less than three times its size, beyond it the error `event_too_large`",
        "23": "events split between any two bytes: the same events come out",
        "24": "very many events in one packet: the same events come out, at once; less than 5 ms are added",
        "25": "invalid UTF-8: replaced, no crash, no event lost",
        "26": "a NUL inside a JSON string: passes",
        "27": "line ends of every kind, also split by a packet: as they came",
        "28": "a byte order mark: no part of the first field",
        "29": "a flood of comments, 100,000 a second: thinned, and no timer is put off by it",
        "30": "a stream without end: the error `stream_too_long`, the upstream is released",
        "31": "`[DONE]` twice: once for the client",
        "32": "data after `[DONE]`: not for the client",
        "33": "silence in mid-stream: keep-alive comments until the idle timer fires",
        "34": "bytes that trickle and are no token: the timer for tokens fires",
        "35": "a pooled connection that closes as it is used again: replaced, no failure",
        "36": "100, 103, or a refusal while the body is still being sent: read, the sending stops",
        "37": "text said again when a stream is taken up: said once",
        "38": "repetition that is meant (`ha ha ha`, tables, base64): never removed",
        "39": "a tool call cut in its arguments: an error, never a complete call with broken JSON",
        "40": "usage without choices, `length`, `content_filter`, unknown fields: unchanged",
    },
    "The client": {
        "41": "it leaves before the answer begins: the upstream is released, no failure, the permit is back",
        "42": "it leaves in mid-stream, by FIN or RST: the same, the upstream within 100 ms",
        "43": "it closes its half of the connection: it has left",
        "44": "it reads slowly or not at all: bounded memory, the upstream waits, in the end it is closed; others are unharmed",
        "45": "a body beyond the limit, announced or chunked: 413, early",
        "46": "a body that is no JSON object: 400 that says where",
        "47": "JSON nested too deeply: 400",
        "48": "a key twice in the body: the last one counts, the same bytes go up",
        "49": "`stream` that is null: absent; that is no boolean: 400",
        "50": "wrong path, method or content type: 404, 405, 415 as JSON",
        "51": "a missing or wrong key: 401, in a time that says nothing about the key",
        "52": "headers, bodies or reads that trickle: cut off by a deadline",
        "53": "request smuggling and malformed HTTP: one refusal, the upstream sees nothing",
        "54": "a crowd at once: each finishes or gets 503 with `Retry-After`; health answers",
        "55": "pipelining, and a connection used again and again, also after errors: framing stays right",
    },
    "The proxy itself": {
        "56": "no descriptors left: it serves what it can, says no to the rest, recovers",
        "57": "a defect in one stream: that stream ends with an error, its siblings are complete",
        "58": "a defect in the breaker: restarted, requests are answered meanwhile; three in a minute end the process",
        "59": "an upstream that flaps: tried at growing intervals with jitter, every change counted",
        "60": "a thousand at a half-open circuit: exactly the probes get through",
        "61": "a probe whose client leaves: its permit is returned",
        "62": "every circuit open: 503 at once, which names them and says until when",
        "63": "many failing requests: the retry budget bounds the extra load",
        "64": "a full mailbox (20,000 messages): counted, no stream waits for it",
        "65": "too many bytes of request bodies, or too little memory: shed before they are read",
        "66": "the wall clock jumps: no timer and no circuit notices",
        "67": "the loop is blocked: measured, and a warning that says where",
    },
    "The operator": {
        "68": "SIGTERM: not ready, no new connections, streams finish within the drain or end with `server_shutdown`, exit 0",
        "69": "SIGHUP with a good configuration: new requests follow it, running streams do not",
        "70": "SIGHUP with a bad one: refused and told, the old one stays",
        "71": "SIGKILL: clients see a cut, the next process serves at once",
        "72": "SIGINT is SIGTERM; SIGPIPE is ignored",
        "73": "the log's disk is full, its pipe closed or its reader stuck: serving goes on, lost lines are counted",
        "74": "port in use, unreadable file, unknown setting, missing variable: exit 2 and one line",
        "75": "the store of shared state is down, slow or emptied: the local breaker goes on",
        "76": "the receiver of metrics or traces is down: no effect",
        "77": "the upstream's address changes: new connections follow within the pool's lifetime",
        "78": "the proxy is its own upstream: 508 after some hops",
        "79": "the certificate is renewed: no stream is dropped",
        "80": "a day of traffic: memory, tasks and descriptors return to where they were",
    },
}

#: Rows without a test, and why.
NOT_SHOWN: Final[dict[str, str]] = {
    "75": "not applicable: there is no shared state",
    "79": "not applicable: there is no TLS listener",
}

#: What the tests of a row leave open.
LEFT_OPEN: Final[dict[str, str]] = {
    "80": "a day; the suite runs a minute, and an hour was run by hand (`make soak`): 67,710 requests, everything back, memory level at its end",
    "54": "five thousand clients, and the memory they take; `python -m bench.crowd` sends them",
}

#: Tests that belong to a row and do not have its number in their name: "FILE under tests/": {"TEST": rows}.
ALSO: Final[dict[str, dict[str, list[str]]]] = {
    "actors/sansio/test_chunk_parser.py": {
        "test_a_recording_reads_the_same_for_every_cut": ["23", "24", "27"],
        "test_an_event_beyond_the_limit": ["22"],
        "test_invalid_utf8_is_replaced_and_never_passed_on": ["25"],
        "test_nul_and_line_separators_inside_json": ["26"],
    },
    "actors/sansio/test_event_json.py": {"test_in_band_errors": ["12", "12b"], "test_malformed": ["15"]},
    "actors/sansio/test_sse_blocks.py": {
        "test_a_byte_order_mark_split_at_the_start": ["28"],
        "test_the_size_limit_is_exact": ["22"],
    },
    "actors/sansio/test_stream_head.py": {
        "test_an_end_before_anything_was_said": ["16", "17"],
        "test_an_error_inside_a_200_is_restated": ["12", "12b"],
        "test_real_events_count_whatever_the_content_type": ["13"],
    },
    "actors/sansio/test_stream_machine_time.py": {"test_idle_counts_from_the_last_token_and_comments_are_none": ["29", "34"]},
    "actors/test_circuit_breaker.py": {
        "test_24_a_probe_whose_caller_leaves_before_the_answer_frees_its_place": ["61"],
        "test_a_full_mailbox_is_counted_and_turns_questions_away_before_reports": ["64"],
        "test_the_caller_at_whose_question_the_body_fails_is_let_through_at_once": ["58"],
    },
    "actors/test_transport.py": {
        "test_an_early_error_stops_the_sending_and_is_reported": ["36"],
        "test_interim_responses_are_skipped_and_never_asked_for": ["36"],
    },
    "actors/test_transport_connections.py": {"test_a_connection_that_dies_as_it_is_used_again_costs_one_more_try": ["35"]},
    "actors/test_upstream.py": {"test_plain_http_on_a_tls_port": ["3"]},
    "e2e/test_byte_identity.py": {"test_a_clean_stream_is_not_changed": ["13", "36", "40"]},
    "e2e/test_honest_end.py": {
        "test_an_error_event_in_the_middle_ends_the_stream": ["12"],
        "test_done_is_added_only_when_every_choice_has_finished": ["18"],
        "test_what_came_before_the_end_is_complete": ["15", "17", "20"],
    },
    "e2e/test_loop_guard.py": {"test_cut_ends_an_endless_stream_and_its_upstream": ["30"]},
    "e2e/test_resume.py": {"test_another_answer_is_never_spliced": ["37"]},
    "e2e/test_timers.py": {"test_silence_in_the_middle": ["33"]},
    "server/test_client_keys.py": {"test_51_anything_else_is_nobody": ["51"]},
    "server/test_log.py": {"test_56_a_process_out_of_descriptors_does_not_fill_the_disk_with_it": ["56"]},
    "server/test_log_sink.py": {
        "test_73_a_closed_pipe_is_counted": ["73"],
        "test_73_a_full_disk_is_counted": ["73"],
        "test_73_a_reader_that_stands_still_costs_lines_and_never_time": ["73"],
    },
    "server/test_metrics.py": {"test_59_each_transition_of_a_breaker_is_counted": ["59"]},
    "stutter/test_hard_negatives.py": {"test_it_leaves_as_it_came": ["38"]},
    "stutter/test_clean_streams.py": {"test_a_recorded_stream_leaves_as_it_came": ["40"]},
}

_IN_A_NAME: Final = re.compile(r"test_rows?_(\d+b?(?:_(?:and_)?\d+b?(?=_|$))*)(?:_|$)")
_IN_AN_ID: Final = re.compile(r"row[-_](\d+b?)\b")

_BEFORE = """\
# Faults, and the tests that show what happens in each

Each row is one fault and what must happen in it. Most of its tests have its number in their name (`pytest -k row_22`). Where we know of
something that a row's tests leave open, it says so. Most of the faults can be tried by hand: [simulator.md](simulator.md).
"""


def rows() -> dict[str, str]:
    """Every row's number and its words, in the order of the page."""
    return {number: words for part in ROWS.values() for number, words in part.items()}


def test_functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The tests of a file as they are written."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")]


def shown_by() -> dict[str, dict[str, list[str]]]:
    """The tests of each row that has some: number -> file under the checkout -> names of tests, both in order."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        file = path.relative_to(ROOT / "tests").as_posix()
        tables = _tables_of_cases(path)
        for function in test_functions(path):
            numbers = _numbers_of(function, tables) | set(ALSO.get(file, {}).get(function.name, []))
            for number in numbers:
                found.setdefault(number, {}).setdefault(f"tests/{file}", []).append(function.name)
    return found


def page() -> str:
    """The page as it should be."""
    found = shown_by()
    parts = [_BEFORE]
    for heading, part in ROWS.items():
        lines = [f"## {heading}", "", "| row | what happens | shown by |", "|---|---|---|"]
        lines += [f"| {number} | {words} | {_cell(number, found.get(number, {}))} |" for number, words in part.items()]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _cell(number: str, tests: dict[str, list[str]]) -> str:
    pieces = [f"[{file.removeprefix('tests/')}](../{file}): " + ", ".join(f"`{name}`" for name in names) for file, names in tests.items()]
    if number in NOT_SHOWN:
        pieces.append(NOT_SHOWN[number])
    if number in LEFT_OPEN:
        pieces.append(f"not shown: {LEFT_OPEN[number]}")
    return "<br>".join(pieces)


def _tables_of_cases(path: Path) -> dict[str, set[str]]:
    """Names at the top of a file whose values hold ids of cases, with the rows these name."""
    tables = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and (numbers := _ids_in(node.value)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            tables.update({target.id: numbers for target in targets if isinstance(target, ast.Name)})
    return tables


def _numbers_of(function: ast.FunctionDef | ast.AsyncFunctionDef, tables: dict[str, set[str]]) -> set[str]:
    match = _IN_A_NAME.match(function.name)
    numbers = {number.lstrip("0") for number in re.findall(r"\d+b?", match[1])} if match else set()
    for decorator in function.decorator_list:
        numbers |= _ids_in(decorator)
        for node in ast.walk(decorator):
            if isinstance(node, ast.Name):
                numbers |= tables.get(node.id, set())
    return numbers


def _ids_in(value: ast.AST) -> set[str]:
    texts = [node.value for node in ast.walk(value) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {match[1].lstrip("0") for text in texts if (match := _IN_AN_ID.match(text))}


if __name__ == "__main__":
    (ROOT / "docs" / "faults.md").write_text(page())
