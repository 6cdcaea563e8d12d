"""Every hard negative leaves byte for byte, in every envelope in which it is legitimate, at every speed, under every profile."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from actors.sansio.chunk_parser import ChunkParser
from actors.sansio.chunks import Done, Event
from actors.sansio.smart_buffer import BufferPolicy, SmartBuffer
from actors.sansio.stuttering_detector import StutteringDetector, StutterPolicy
from server.replay import replay

from .hard_negatives import NEGATIVES
from .hard_negatives.canonical import canonical
from .hard_negatives.stream import GAPS, PROFILES, STYLES, Negative, arrivals, split, write
from .hard_negatives.twins import TWINS, Twins, faulty

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from actors.sansio.chunks import Chunk
    from actors.sansio.smart_buffer import Released

#: Public reports of legitimate text that a repair, a guard or a parser damaged, or of traps for one; as STUTTER.md names them.
REPORTS = {
    *("Kiro-Go 138", "kirocc 112", "jetbrains-cc-gui 1205", "web-ai-sdk 263", "conductor-oss 618", "hermes-conduit 43"),
    *("llama_index 22465", "llama_index 23032", "identical consecutive tool calls", "open-webui 22235", "ihub-apps 1954"),
    *("ai-dynamo 15054", "MaplePrivacyLabs 657", "openai-python 3241", "openai-python 3425"),
    *("kimi-code 3928", "LightLLM 1345", "Perplexity delta plus message", "github-copilot id rotation"),
    *("cerebras two completions in a body", "OpenRouter second finish chunks", "SillyTavern 2960"),
    *("qwen-code 3896", "qwen-code 7896", "beever-atlas 334", "LiteLLM 6549"),
}
LONGEST_HOLD = BufferPolicy().hold


def send(chunks: Sequence[Chunk], times: Iterable[float], profile: str) -> tuple[bytes, float, bool]:
    """Chunks through detector and buffer. Returns: the bytes that left, the longest wait, whether the first event left at once."""
    buffer = SmartBuffer(StutteringDetector(StutterPolicy(profile=profile)))  # type: ignore[arg-type]  # one of PROFILES
    left: list[Released] = []
    now, prompt = 0.0, False
    for place, (chunk, now) in enumerate(zip(chunks, times, strict=True)):
        while buffer.deadline <= now:
            left += buffer.expire(buffer.deadline)
        if isinstance(chunk, Event):
            left += buffer.add(chunk, now)
        else:
            left += buffer.flush(now) if isinstance(chunk, Done) else buffer.add_other(chunk, now)
        prompt |= not place and bool(left)
    done = chunks[-1].raw
    return b"".join(one.frame for one in left) + done, max(one.held_for for one in left), prompt


def parsed(raw: bytes) -> list[Chunk]:
    parser = ChunkParser()
    return [*parser.feed(raw), *parser.close(clean=True)]


@pytest.mark.parametrize("negative", NEGATIVES, ids=lambda negative: negative.name)
def test_it_leaves_as_it_came(negative: Negative) -> None:
    damaged: list[tuple[str, str, str]] = []
    for style in negative.styles:
        raw = b"".join(write(negative, style))
        chunks = parsed(raw)
        for speed in GAPS:
            for profile in negative.profiles:
                left, wait, prompt = send(chunks, arrivals(len(chunks), speed), profile)
                if left != raw or wait > LONGEST_HOLD + 1e-9 or not prompt:
                    damaged.append((style, speed, profile))
    assert not damaged


@pytest.mark.parametrize("negative", NEGATIVES, ids=lambda negative: negative.name)
def test_it_passes_the_stream_machine_as_it_came(negative: Negative) -> None:
    for style in negative.styles:
        raw = b"".join(write(negative, style))
        for profile in negative.profiles:
            policy = StutterPolicy(profile=profile)  # type: ignore[arg-type]  # one of PROFILES
            for pace in (0.002, 0.04, 0.3) if profile == "generic" else (0.04,):
                assert replay(raw, pace=pace, stutter=policy).body == raw


def test_there_are_enough_and_each_says_why() -> None:
    assert len(NEGATIVES) >= 250
    assert all(negative.rule and negative.styles and set(negative.styles) <= set(STYLES) for negative in NEGATIVES)
    assert all(negative.profiles and set(negative.profiles) <= set(PROFILES) for negative in NEGATIVES)
    assert [name for name, count in Counter(negative.name for negative in NEGATIVES).items() if count > 1] == []


def test_no_two_differ_only_in_the_repeated_string_or_its_count() -> None:
    forms: dict[str, list[str]] = {}
    for negative in NEGATIVES:
        forms.setdefault(canonical(negative), []).append(negative.name)
    assert [names for names in forms.values() if len(names) > 1] == []


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("ha|ha|ha|!", "6|6|.", True),  # another string, another count
        ("a| b|x|x| c", "one| two| three|- |- | four", True),  # another number of deltas that say nothing
        ("tick|tock|tick|tock", "1|2|1|2|1|2", True),  # a unit of several deltas
        ("ha|ha|ha|!", "Well|ha|ha|ha|!", False),  # another place
        ("I|I'll| go", "I|You| go", False),  # another relation
        ("a|b|a", "a|b|b", False),
    ],
)
def test_the_canonical_form_forgets_strings_and_counts_only(one: str, other: str, alike: bool) -> None:
    assert (canonical(split("", "", one)) == canonical(split("", "", other))) is alike


def test_every_public_report_is_there() -> None:
    assert {negative.report for negative in NEGATIVES} - {""} == REPORTS


@pytest.mark.parametrize("twins", TWINS, ids=lambda twins: twins.asked)
def test_a_clean_stream_and_a_faulty_one_have_the_same_bytes(twins: Twins) -> None:
    asked, seen = (split("", "", "|".join(deltas)) for deltas in (twins.deltas, faulty(twins.shape, twins.true)))
    assert write(asked, "constant") == write(seen, "constant")
    assert "".join(twins.deltas) != "".join(twins.true)


def test_the_styles_differ_and_are_read_as_meant() -> None:
    negative = split("", "", "so|so| it| goes")
    bodies = {style: b"".join(write(negative, style)) for style in STYLES}
    assert len(set(bodies.values())) == len(STYLES)
    for raw in bodies.values():
        events = [chunk for chunk in parsed(raw) if isinstance(chunk, Event)]
        assert [delta.text for event in events for delta in event.deltas] == ["so", "so", " it", " goes"]
