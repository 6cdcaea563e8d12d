"""The exceptions of evenflow, split by whose fault they are.

    EvenflowError
    |- ClientGone                     the client's side of the connection is dead
    |  `- ClientStalled               it may live, but it took nothing for `timers.client_stall`
    |- UpstreamError                  the upstream (or the way to it) failed
    |  |- UpstreamConnectError        refused, unreachable, or no answer to the connect within `timers.connect`
    |  |  |- UpstreamDnsError         the host name did not resolve
    |  |  |- UpstreamTlsError         the handshake or the certificate failed
    |  |  `- OutOfDescriptors         this process may open no further file
    |  |- UpstreamTimeout             one of our own deadlines fired; names the setting
    |  |- UpstreamDisconnected        the connection broke before the response was complete
    |  `- UpstreamProtocolError       what came is not HTTP
    |- BreakerGone                    the circuit breaker's actor is not running any more
    `- BreakerFailed                  it failed too often to be started again: the end of the process

Expected failures travel as *values* (`sansio.faults.Fault`, `stream_processor.Outcome`). The exceptions here exist
only between the seam that first sees a failure (the httpx client, the outlet) and the one place that turns it into a value.
This module imports nothing, so that everything may import it.
"""


class EvenflowError(Exception):
    """Base of everything evenflow raises on purpose."""


class ClientGone(EvenflowError):
    """Nothing more can be written to the client: it closed, reset, or its connection broke."""


class ClientStalled(ClientGone):
    """The client took nothing for as long as we wait; it is given up."""


class UpstreamError(EvenflowError):
    """The upstream, or the way to it, failed. The text says what happened, never a credential."""


class UpstreamConnectError(UpstreamError):
    """No connection: refused, unreachable, or nobody answered in time."""


class UpstreamDnsError(UpstreamConnectError):
    """The upstream's host name did not resolve."""


class UpstreamTlsError(UpstreamConnectError):
    """The TLS handshake failed, or the certificate is not to be trusted."""


class OutOfDescriptors(UpstreamConnectError):
    """This process, or the system, has no descriptor for a connection."""


class UpstreamTimeout(UpstreamError):
    """One of our own deadlines fired.

    Args:
      setting: dotted name of the setting that fired, for example `timers.first_token`.
      seconds: its value.
    """

    def __init__(self, setting: str, seconds: float) -> None:
        super().__init__(f"{setting} = {seconds:g} s passed")
        self.setting = setting
        self.seconds = seconds


class UpstreamDisconnected(UpstreamError):
    """The connection broke before the response was complete."""


class UpstreamProtocolError(UpstreamError):
    """The peer does not speak HTTP as we know it, or broke its framing."""


class BreakerGone(EvenflowError):
    """The circuit breaker's actor is not running: the process is shutting down or it crashed for good."""


class BreakerFailed(EvenflowError):
    """The circuit breaker's actor failed again and again; a process without it protects nobody and has to be started afresh."""
