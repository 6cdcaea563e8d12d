"""What follows a failed attempt, by table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as hs

from actors import Fault, FaultKind
from actors.sansio.error_recovery import STRATEGIES, Decision, ErrorRecoveryManager, Fail, FailOver, RecoveryPolicy, Retry, Strategy

K = FaultKind
ALONE = ("m",)
TWO = ("m", "m")


def manager(
    models: tuple[str, ...] = ALONE, policy: RecoveryPolicy | None = None, *, retrying: bool = False, random: float = 0.5
) -> ErrorRecoveryManager:
    return ErrorRecoveryManager(policy or RecoveryPolicy(), models, client_is_retrying=retrying, random=lambda: random)


def fault(kind: FaultKind, retry_after: float | None = None) -> Fault:
    return Fault(kind, "so it was", retry_after=retry_after)


def kinds(decisions: list[Decision]) -> list[str]:
    return [type(decision).__name__ for decision in decisions]


def test_retries_are_spent_here_before_the_next_upstream_is_asked_and_then_all_is_over() -> None:
    recovery = manager(TWO)
    decisions = [recovery.decide(fault(K.SERVER_ERROR)) for _ in range(6)]
    assert kinds(decisions) == ["Retry", "Retry", "FailOver", "Retry", "Retry", "Fail"]
    assert recovery.candidate == 1


def test_back_off_doubles_up_to_its_cap_with_full_jitter() -> None:
    policy = RecoveryPolicy(retries=6, backoff_base=0.5, backoff_cap=8.0)
    for random, expected in ((0.0, [0.0] * 6), (0.5, [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]), (1.0, [0.5, 1.0, 2.0, 4.0, 8.0, 8.0])):
        recovery = manager(ALONE, policy, random=random)
        assert [recovery.decide(fault(K.CONNECT)) for _ in range(6)] == [Retry(delay) for delay in expected]


def test_back_off_starts_anew_at_the_next_upstream() -> None:
    recovery = manager(TWO, random=1.0)
    delays = [recovery.decide(fault(K.CONNECT)) for _ in range(5)]
    assert delays == [Retry(0.5), Retry(1.0), FailOver(0.0), Retry(0.5), Retry(1.0)]


@pytest.mark.parametrize(
    ("models", "retry_after", "expected"),
    [
        (TWO, 0.0, Retry(0.025)),
        (TWO, 5.0, Retry(5.025)),  # the jitter goes on top
        (TWO, 5.1, FailOver(0.0)),
        (ALONE, 30.0, Retry(30.025)),
        (ALONE, 30.1, Fail()),  # the client gets the 429 and its Retry-After
        (ALONE, 1e9, Fail()),
    ],
)
def test_retry_after_is_honoured_as_long_as_it_is_worth_it(models: tuple[str, ...], retry_after: float, expected: Decision) -> None:
    assert manager(models).decide(fault(K.RATE_LIMITED, retry_after)) == expected


def test_retry_after_is_honoured_on_any_fault() -> None:
    assert manager().decide(fault(K.SERVER_ERROR, 2.0)) == Retry(2.025)


NEVER = [K.DIFFERED, K.BAD_REQUEST, K.CONTENT_FILTER, K.REDIRECT, K.TOTAL_TIMEOUT, K.EVENT_TOO_LARGE, K.LOOP, K.SHUTDOWN, K.INTERNAL]
ELSEWHERE = [K.TLS, K.AUTH, K.MODEL_ACCESS, K.QUOTA, K.FIRST_TOKEN_TIMEOUT]


@pytest.mark.parametrize("kind", NEVER)
def test_some_faults_are_never_repeated(kind: FaultKind) -> None:
    assert manager(TWO).decide(fault(kind)) == Fail()


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_some_faults_move_on_at_once(kind: FaultKind) -> None:
    assert manager(TWO).decide(fault(kind)) == FailOver(0.0)
    assert manager(ALONE).decide(fault(kind)) == Fail()


@pytest.mark.parametrize("kind", [kind for kind in FaultKind if kind not in {*NEVER, *ELSEWHERE, K.CONTEXT_LENGTH, K.UNAVAILABLE, K.BUSY}])
def test_the_others_are_tried_again(kind: FaultKind) -> None:
    assert isinstance(manager(TWO).decide(fault(kind)), Retry)


def test_a_context_too_long_moves_on_only_to_another_model() -> None:
    recovery = manager(("small", "small", "large"))
    assert recovery.decide(fault(K.CONTEXT_LENGTH)) == FailOver(0.0)
    assert recovery.candidate == 2
    assert manager(("small", "small")).decide(fault(K.CONTEXT_LENGTH)) == Fail()


def test_after_another_candidate_answered_first_its_own_retries_count() -> None:
    recovery = manager(("m", "m", "m"))
    recovery.decide(fault(K.CONNECT))
    recovery.settle_on(1)
    assert kinds([recovery.decide(fault(K.TRUNCATED)) for _ in range(3)]) == ["Retry", "Retry", "FailOver"]
    assert recovery.candidate == 2


@pytest.mark.parametrize("kind", [K.UNAVAILABLE, K.BUSY])
def test_a_refusal_of_our_own_moves_on_whatever_the_settings_say(kind: FaultKind) -> None:
    fail = RecoveryPolicy(strategies=dict.fromkeys(STRATEGIES, Strategy.FAIL))
    recovery = manager(TWO, fail)
    assert recovery.decide(fault(kind, 3.0)) == FailOver(0.0)
    assert recovery.decide(fault(K.UNAVAILABLE, 3.0)) == Fail()


def test_a_client_that_retries_itself_gets_one_further_try() -> None:
    recovery = manager(TWO, retrying=True)
    assert isinstance(recovery.decide(fault(K.SERVER_ERROR)), Retry)
    assert recovery.decide(fault(K.SERVER_ERROR)) == Fail()


def test_a_refusal_by_our_own_breaker_is_no_try() -> None:
    recovery = manager(("m", "m", "m", "m"), RecoveryPolicy(retries=0), retrying=True)
    assert recovery.decide(fault(K.UNAVAILABLE)) == FailOver(0.0)  # the first was never asked
    assert recovery.decide(fault(K.SERVER_ERROR)) == FailOver(0.0)  # this is the one further try
    assert recovery.decide(fault(K.UNAVAILABLE)) == FailOver(0.0)
    assert recovery.decide(fault(K.SERVER_ERROR)) == Fail()


def test_the_latest_fault_decides() -> None:
    recovery = manager()
    recovery.decide(fault(K.RATE_LIMITED, 4.0))
    assert recovery.decide(fault(K.SERVER_ERROR)) == Retry(0.5)  # not the Retry-After of the one before


# ---- recovery.<fault> ---------------------------------------------------------------------------------------------------

GOVERNED = [(kind, name) for kind in FaultKind if (name := fault(kind).recovery) is not None]
#: Decided by the stream machine, which is told so by its policy.
ELSEWHERE_DECIDED = {"reasoning_cut", "bad_chunk"}


def test_every_setting_governs_a_fault_and_every_fault_names_a_setting_that_exists() -> None:
    assert {name for _, name in GOVERNED} | ELSEWHERE_DECIDED == set(STRATEGIES)


@pytest.mark.parametrize(("kind", "name"), GOVERNED)
def test_each_legal_strategy_is_followed(kind: FaultKind, name: str) -> None:
    assert len(STRATEGIES[name]) > 1
    for strategy in STRATEGIES[name]:
        decision = manager(("m", "n"), RecoveryPolicy(strategies={name: strategy})).decide(fault(kind))
        assert type(decision) is {Strategy.RETRY: Retry, Strategy.FAILOVER: FailOver, Strategy.FAIL: Fail}[strategy]
    default = manager(("m", "n")).decide(fault(kind))
    assert default == manager(("m", "n"), RecoveryPolicy(strategies={name: STRATEGIES[name][0]})).decide(fault(kind))


@given(
    hs.lists(hs.tuples(hs.sampled_from(FaultKind), hs.none() | hs.floats(0, 100)), max_size=40),
    hs.integers(1, 4),
    hs.integers(0, 3),
    hs.booleans(),
)
def test_it_ends_and_never_leaves_the_route(
    faults: list[tuple[FaultKind, float | None]], upstreams: int, retries: int, retrying: bool
) -> None:
    recovery = manager(("m",) * upstreams, RecoveryPolicy(retries=retries), retrying=retrying)
    tries = 0
    for kind, retry_after in faults:
        before = recovery.candidate
        decision = recovery.decide(fault(kind, retry_after))
        if isinstance(decision, Fail):
            return
        tries += not fault(kind).nobody_asked
        assert decision.delay >= 0.0
        assert recovery.candidate == before + isinstance(decision, FailOver)
        assert recovery.candidate < upstreams
        assert tries <= (1 if retrying else upstreams * (retries + 1) - 1)
