"""The product's heart: everything between an accepted request and its upstreams. Never imports server/."""

from .attempts import Attempts, FirstLook
from .circuit_breaker import CircuitBreaker, open_circuit_breaker
from .errors import ClientGone, ClientStalled, EvenflowError, UpstreamError
from .outcome import End, Outcome, Party, Phase, Tally
from .outlet import Outlet, ResponseHead
from .relay import RelayProcessor
from .routes import Candidate, Route, RouteTable, Secret, Timers, Upstream
from .sansio.effects import Complete, Failed
from .sansio.faults import Fault, FaultKind, error_json
from .sansio.headers import to_upstream
from .sansio.request_body import BadRequest, RequestFacts, read_request
from .sansio.smart_buffer import BufferPolicy, SmartBuffer
from .sansio.stream_machine import StreamMachine, StreamPolicy
from .sansio.stuttering_detector import StutteringDetector, StutterPolicy
from .stream_processor import StreamProcessor
from .upstream import UpstreamClient, UpstreamRequest, open_upstream_client
from .writer import ResponseHeaders

__all__ = [
    "Attempts",
    "BadRequest",
    "BufferPolicy",
    "Candidate",
    "CircuitBreaker",
    "ClientGone",
    "ClientStalled",
    "Complete",
    "End",
    "EvenflowError",
    "Failed",
    "Fault",
    "FaultKind",
    "FirstLook",
    "Outcome",
    "Outlet",
    "Party",
    "Phase",
    "RelayProcessor",
    "RequestFacts",
    "ResponseHead",
    "ResponseHeaders",
    "Route",
    "RouteTable",
    "Secret",
    "SmartBuffer",
    "StreamMachine",
    "StreamPolicy",
    "StreamProcessor",
    "StutterPolicy",
    "StutteringDetector",
    "Tally",
    "Timers",
    "Upstream",
    "UpstreamClient",
    "UpstreamError",
    "UpstreamRequest",
    "error_json",
    "open_circuit_breaker",
    "open_upstream_client",
    "read_request",
    "to_upstream",
]
