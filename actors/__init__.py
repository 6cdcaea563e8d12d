"""The product's heart: everything between an accepted request and its upstreams. Never imports server/."""

from .admission import REJECTIONS, Admission, AdmissionPolicy, AdmissionStatistics, Rejection, Visit
from .alarms import Alarms, open_alarms
from .attempts import Attempts
from .circuit_breaker import CircuitBreaker, open_circuit_breaker
from .errors import BreakerGone, ClientGone, ClientStalled, UpstreamError
from .first_look import FirstLook
from .outcome import End, Outcome, Party, Phase, Tally
from .outlet import Outlet, ResponseHead
from .relay import RelayProcessor
from .routes import Candidate, Route, RouteTable, Secret, Timers, Upstream, is_glob, seconds_or_off
from .sansio.breaker_state import MODES, BreakerPolicy, BreakerStatistics, CircuitStatistics, Mode, StateName, circuit_name, upstream_of
from .sansio.effects import Complete, Failed
from .sansio.error_recovery import STRATEGIES, RecoveryPolicy, Strategy
from .sansio.faults import Fault, FaultKind, error_json
from .sansio.headers import to_upstream
from .sansio.loop_guard import LoopGuard, LoopPolicy
from .sansio.request_body import BadRequest, RequestFacts, read_request
from .sansio.resume_plan import strategies_for
from .sansio.retry_budget import RetryBudgetPolicy
from .sansio.smart_buffer import BufferPolicy, SmartBuffer
from .sansio.stream_machine import StreamMachine
from .sansio.stream_policy import StreamPolicy
from .sansio.stuttering_detector import StutteringDetector, StutterPolicy
from .sansio.trace import Trace
from .sansio.upstream_history import Learned, UpstreamHistory
from .shadow import Shadow, ShadowVerdict
from .stream_processor import StreamProcessor
from .upstream import UpstreamClient, UpstreamRequest, UpstreamResponse, open_upstream_client
from .writer import ResponseHeaders

__all__ = [
    "MODES",
    "REJECTIONS",
    "STRATEGIES",
    "Admission",
    "AdmissionPolicy",
    "AdmissionStatistics",
    "Alarms",
    "Attempts",
    "BadRequest",
    "BreakerGone",
    "BreakerPolicy",
    "BreakerStatistics",
    "BufferPolicy",
    "Candidate",
    "CircuitBreaker",
    "CircuitStatistics",
    "ClientGone",
    "ClientStalled",
    "Complete",
    "End",
    "Failed",
    "Fault",
    "FaultKind",
    "FirstLook",
    "Learned",
    "LoopGuard",
    "LoopPolicy",
    "Mode",
    "Outcome",
    "Outlet",
    "Party",
    "Phase",
    "RecoveryPolicy",
    "Rejection",
    "RelayProcessor",
    "RequestFacts",
    "ResponseHead",
    "ResponseHeaders",
    "RetryBudgetPolicy",
    "Route",
    "RouteTable",
    "Secret",
    "Shadow",
    "ShadowVerdict",
    "SmartBuffer",
    "StateName",
    "Strategy",
    "StreamMachine",
    "StreamPolicy",
    "StreamProcessor",
    "StutterPolicy",
    "StutteringDetector",
    "Tally",
    "Timers",
    "Trace",
    "Upstream",
    "UpstreamClient",
    "UpstreamError",
    "UpstreamHistory",
    "UpstreamRequest",
    "UpstreamResponse",
    "Visit",
    "circuit_name",
    "error_json",
    "is_glob",
    "open_alarms",
    "open_circuit_breaker",
    "open_upstream_client",
    "read_request",
    "seconds_or_off",
    "strategies_for",
    "to_upstream",
    "upstream_of",
]
