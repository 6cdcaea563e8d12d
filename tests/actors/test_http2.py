"""HTTP/2 as bytes: the same whatever the reads are cut into, and never an exception whatever comes."""

from __future__ import annotations

import itertools

import h2.config
import h2.connection
import h2.events
import pytest
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import UpstreamProtocolError
from actors.http2 import PIECE, Http2Response, Http2Session

HEADERS = [(b"host", b"a"), (b"accept", b"*/*")]


def asked(body: bytes = b"{}") -> tuple[Http2Session, Http2Response]:
    session = Http2Session()
    return session, session.ask("POST", "https", b"/v1", HEADERS, body)


def server() -> h2.connection.H2Connection:
    made = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    made.initiate_connection()
    return made


def conversation() -> bytes:
    """All that a server says to one request: an interim response, a body in pieces, a GOAWAY in its midst, trailers."""
    there = server()
    there.receive_data(asked()[1].outgoing())
    there.send_headers(1, [(b":status", b"103"), (b"link", b"</x>")])
    there.send_headers(1, [(b":status", b"200"), (b"content-type", b"text/event-stream")])
    there.send_data(1, b"one", pad_length=7)
    there.ping(b"question")
    said = there.data_to_send() + GoAwayFrame(0, last_stream_id=1).serialize()
    there.send_data(1, b"")
    there.send_data(1, b"two" * 5000)
    there.send_headers(1, [(b"grpc-status", b"0")], end_stream=True)
    return said + there.data_to_send()


CONVERSATION = conversation()


@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=20))
def test_the_response_is_the_same_wherever_the_reads_are_cut(cuts: list[int]) -> None:
    _, response = asked()
    response.outgoing()
    body = b""
    edges = sorted({0, *cuts, len(CONVERSATION)})
    for start, end in itertools.pairwise(edges):
        response.feed(CONVERSATION[start:end])
        body += response.take()
    assert (response.complete, response.failure, response.status) == (True, None, 200)
    assert response.headers == [(b"content-type", b"text/event-stream")]
    assert body == b"one" + b"two" * 5000
    assert not response.reusable  # the server said that it will close


@given(st.integers(0, len(CONVERSATION) - 1))
def test_a_response_that_is_cut_is_never_taken_for_a_whole_one(length: int) -> None:
    _, response = asked()
    response.outgoing()
    response.feed(CONVERSATION[:length])
    response.feed(b"")
    assert not response.complete
    assert response.failure is not None
    assert (b"one" + b"two" * 5000).startswith(response.take())


@given(st.binary(max_size=200), st.integers(0, len(CONVERSATION)), st.booleans())
def test_whatever_comes_is_a_response_or_a_failure(noise: bytes, place: int, closes: bool) -> None:
    session, response = asked()
    response.outgoing()
    response.feed(CONVERSATION[:place] + noise + CONVERSATION[place:])
    if closes:
        response.feed(b"")
        assert response.over
    response.take()
    response.close()
    response.due()
    if response.failure is not None:
        assert not response.reusable
        later = session.ask("GET", "https", b"/", HEADERS, b"")
        later.outgoing()
        assert not later.complete


@given(st.binary(max_size=3 * PIECE), st.sampled_from([1, 1000, 65_535, 1 << 20]), st.booleans())
def test_a_body_goes_out_whole_as_far_as_the_server_takes_it(body: bytes, window: int, waits: bool) -> None:
    there = server()
    there.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
    _, response = asked(body)
    if waits:  # what the server wants is known before the body begins
        response.feed(there.data_to_send())
    received = b""
    for _ in range(200_000):
        for event in there.receive_data(response.outgoing()):
            if isinstance(event, h2.events.DataReceived):
                received += event.data
                there.acknowledge_received_data(event.flow_controlled_length, 1)
        if response.said:
            break
        response.feed(there.data_to_send())
    assert response.said
    assert received == body


def test_a_request_that_cannot_be_said_has_failed_before_a_byte_is_out() -> None:
    session = Http2Session()
    response = session.ask("POST", "https", b"/v1", [*HEADERS, (b"x", b"a\r\nb: c")], b"{}")
    assert isinstance(response.failure, UpstreamProtocolError)
    assert b"b: c" not in response.outgoing()


@pytest.mark.parametrize(
    ("last", "takes"),
    [(0, False), (1, True), (3, True), (0x7FFFFFFF, True)],
)
def test_a_goaway_ends_the_streams_that_come_after_its_last(last: int, takes: bool) -> None:
    session, response = asked()
    response.outgoing()
    response.feed(GoAwayFrame(0, last_stream_id=last).serialize())
    assert (response.failure is None) == takes
    assert session.closing
    assert not response.started


def test_many_header_lines_and_long_ones_are_a_failure() -> None:
    for lines in ([(b"a", b"b")] * 201, [(b"a", b"b" * 60_000)] * 2):
        there = server()
        _, response = asked()
        there.receive_data(response.outgoing())
        there.send_headers(1, [(b":status", b"200"), *lines])
        response.feed(there.data_to_send())
        assert isinstance(response.failure, UpstreamProtocolError)
