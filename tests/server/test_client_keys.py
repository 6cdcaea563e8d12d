from __future__ import annotations

import hmac
from hmac import compare_digest

import pytest

from actors.routes import Secret
from server.client_keys import KeyRing

ALICE = "sk-alice-0123456789"
BOB = "sk-bob-0123456789"


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing([Secret(ALICE), Secret(BOB)])


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {ALICE}"},
        {"authorization": f"bearer  {ALICE} "},
        {"x-api-key": ALICE},
        {"authorization": "Bearer of-something-else", "x-api-key": ALICE},
        {"authorization": f"Bearer {ALICE}", "x-api-key": "of-something-else"},
    ],
)
def test_a_known_key_is_found_wherever_it_is_presented(ring: KeyRing, headers: dict[str, str]) -> None:
    assert ring.check(headers) == ring.check({"x-api-key": ALICE}) is not None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": ALICE},
        {"authorization": f"Basic {ALICE}"},
        {"authorization": f"Bearer {ALICE[:-1]}"},
        {"authorization": f"Bearer {ALICE}0"},
        {"authorization": f"Bearer {ALICE.upper()}"},
        {"authorization": f"Bearer {ALICE}, Bearer {BOB}"},
        {"x-api-key": "\udcff\u20ac"},
        {"api-key": ALICE},
    ],
)
def test_51_anything_else_is_nobody(ring: KeyRing, headers: dict[str, str]) -> None:
    assert ring.check(headers) is None


@pytest.mark.parametrize("presented", [ALICE, BOB, ALICE[:-1], "x", "x" * 10_000, ""])
def test_row_51_every_digest_is_compared_whole_whatever_is_presented(
    ring: KeyRing, presented: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal's time could tell which key came close and how long it is: so number and length of what is compared are always the same."""
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare_digest(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    found = ring.check({"authorization": f"Bearer {presented}"})
    assert (found is not None) is (presented in (ALICE, BOB))
    assert compared == [(32, 32)] * 4  # two keys, two headers that may carry one


def test_the_id_tells_keys_apart_and_shows_nothing_of_them(ring: KeyRing) -> None:
    ids = {ring.check({"x-api-key": key}) for key in (ALICE, BOB)}
    assert len(ids) == 2
    assert all(found is not None and len(found) == len("key-12345678") and "alice" not in found for found in ids)
    assert KeyRing([Secret(BOB)]).check({"x-api-key": BOB}) in ids  # the same in another process, or after a key was added


def test_a_key_outside_ascii_is_compared_as_it_comes_over_the_wire() -> None:
    assert KeyRing([Secret("schlüssel-鍵")]).check({"x-api-key": "schlüssel-鍵".encode().decode("latin-1")}) is not None


def test_a_ring_without_keys_is_false_and_knows_nobody() -> None:
    assert not KeyRing([])
    assert KeyRing([]).check({"authorization": "Bearer "}) is None
    assert KeyRing([Secret(ALICE)])


def test_an_empty_key_is_refused_since_it_would_let_everybody_in() -> None:
    with pytest.raises(ValueError, match="empty"):
        KeyRing([Secret(ALICE), Secret("")])
