"""The real openai-python client: what its users see, through the proxy, of good answers and of every kind of end."""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
import trio

from .raw_client import CLIENT_KEY
from .running_proxy import running_proxy, settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openai import AsyncOpenAI, AsyncStream
    from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

    from server.simulator import Simulator

    from .running_proxy import LogTap, RunningProxy

# The client leaves its own async generators suspended when it stops reading after [DONE], which trio reports at their collection.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2|httpcore2)[.]:ResourceWarning")

BOTH_ENGINES = pytest.mark.parametrize("engine", ["actors", "relay"])
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def client(proxy: RunningProxy) -> AsyncIterator[AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=proxy.base_url, api_key=CLIENT_KEY, max_retries=0, timeout=10) as client:
        yield client
    gc.collect()  # those generators, while this module's filter is in force


async def stream_of(client: AsyncOpenAI, model: str, **fields: Any) -> AsyncStream[ChatCompletionChunk]:
    stream: AsyncStream[ChatCompletionChunk] = await client.chat.completions.create(model=model, messages=HELLO, stream=True, **fields)
    return stream


async def listen(client: AsyncOpenAI, model: str, said: list[str], **fields: Any) -> None:
    """Put the text of a stream into `said`, as far as it comes."""
    async with await stream_of(client, model, **fields) as stream:
        async for chunk in stream:
            said += [choice.delta.content or "" for choice in chunk.choices]


async def text_of(client: AsyncOpenAI, model: str, **fields: Any) -> str:
    said: list[str] = []
    await listen(client, model, said, **fields)
    return "".join(said)


@BOTH_ENGINES
async def test_a_stream(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="ok", messages=HELLO)
    assert await text_of(client, "ok") == whole.choices[0].message.content


@BOTH_ENGINES
async def test_an_answer_that_is_not_streamed(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="ok", messages=HELLO)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


@BOTH_ENGINES
async def test_usage_at_the_end_of_a_stream(client: AsyncOpenAI) -> None:
    async with await stream_of(client, "ok", stream_options={"include_usage": True}) as stream:
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0


@BOTH_ENGINES
async def test_parallel_tool_calls(client: AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(model="parallel-tools", messages=HELLO)
    calls: dict[int, list[str]] = {}
    async with await stream_of(client, "parallel-tools") as stream:
        async for chunk in stream:
            for call in chunk.choices[0].delta.tool_calls or ():
                assert call.function is not None
                told = calls.setdefault(call.index, ["", ""])
                told[0] += call.function.name or ""
                told[1] += call.function.arguments or ""
    expected = [call.function for call in whole.choices[0].message.tool_calls or () if call.type == "function"]
    assert [tuple(call) for call in calls.values()] == [(function.name, function.arguments) for function in expected]
    assert len(calls) == 2


@pytest.mark.parametrize("model", ["stutter-b2:envelope=dashscope", "stutter-c1:envelope=nonce", "stutter-f1"])
async def test_stutter_is_not_seen(model: str, client: AsyncOpenAI) -> None:
    assert await text_of(client, model) == await text_of(client, "ok")


@BOTH_ENGINES
async def test_reasoning_before_content(client: AsyncOpenAI) -> None:
    thoughts, content = "", ""
    async with await stream_of(client, "reasoning") as stream:
        async for chunk in stream:
            delta = chunk.choices[0].delta
            thoughts += getattr(delta, "reasoning_content", None) or ""
            content += delta.content or ""
    assert thoughts
    assert content == await text_of(client, "ok")


@BOTH_ENGINES
async def test_the_legacy_endpoint(client: AsyncOpenAI) -> None:
    stream = await client.completions.create(model="ok", prompt="hello", stream=True)
    async with stream:
        text = "".join([chunk.choices[0].text async for chunk in stream])
    assert text == await text_of(client, "ok")


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("cut", "upstream_disconnected"),
        ("truncated", "upstream_truncated"),
        ("torn-chunk", "upstream_bad_chunk"),
        ("error-mid", "backend_failed"),
    ],
)
async def test_a_stream_that_fails_in_the_middle_raises_with_its_code(model: str, code: str, client: AsyncOpenAI) -> None:
    said: list[str] = []
    with pytest.raises(openai.APIError) as raised:
        await listen(client, model, said)
    assert raised.value.code == code
    assert "".join(said)


async def test_a_stall_in_the_middle_raises_after_the_timer(simulator: Simulator) -> None:
    async with running_proxy(settings_for({"main": simulator}, timers={"idle": 0.1}), simulator) as proxy:
        async with openai.AsyncOpenAI(base_url=proxy.base_url, api_key=CLIENT_KEY, max_retries=0) as client:
            with pytest.raises(openai.APIError, match=r"timers\.idle") as raised:
                await text_of(client, "stall")
            assert raised.value.code == "upstream_timeout"


async def test_keep_alive_comments_are_not_seen(simulator: Simulator) -> None:
    timers = {"keepalive_after": 0.02, "keepalive_interval": 0.02}
    async with running_proxy(settings_for({"main": simulator}, timers=timers), simulator) as proxy:
        async with openai.AsyncOpenAI(base_url=proxy.base_url, api_key=CLIENT_KEY, max_retries=0) as client:
            assert await text_of(client, "slow-first-token:0.1") == await text_of(client, "ok")


@BOTH_ENGINES
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("http-400", openai.BadRequestError),
        ("http-401", openai.InternalServerError),
        ("http-404", openai.NotFoundError),
        ("http-422", openai.UnprocessableEntityError),
        ("http-429:100", openai.RateLimitError),
        ("http-503", openai.InternalServerError),
        ("html-error", openai.InternalServerError),
    ],
)
async def test_an_error_before_the_stream_raises_by_its_status(
    model: str, error: type[openai.APIStatusError], stream: bool, client: AsyncOpenAI
) -> None:
    with pytest.raises(error) as raised:
        await client.chat.completions.create(model=model, messages=HELLO, stream=stream)
    assert raised.value.body


async def test_an_error_inside_a_200_raises_and_is_no_empty_answer(client: AsyncOpenAI) -> None:
    for model in ("json-error-200", "error-first", "empty-body"):
        with pytest.raises(openai.InternalServerError):
            await text_of(client, model)


@BOTH_ENGINES
async def test_the_client_leaves_in_the_middle(client: AsyncOpenAI, proxy: RunningProxy, simulator: Simulator, log: LogTap) -> None:
    async with await stream_of(client, "endless:pace=5") as stream:
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
    await simulator.observer.wait_for(lambda observer: observer.closes == 1)
    await proxy.until_quiet()
    assert [line["outcome"] for line in log.requests()] == ["cancelled"]


@BOTH_ENGINES
async def test_the_client_is_cancelled_while_it_waits(client: AsyncOpenAI, proxy: RunningProxy, simulator: Simulator, log: LogTap) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(text_of, client, "silence")
        await simulator.observer.wait_for(lambda observer: observer.active == 1)
        nursery.cancel_scope.cancel()
    await simulator.observer.wait_for(lambda observer: observer.closes == 1)
    await proxy.until_quiet()
    assert [line["outcome"] for line in log.requests()] == ["cancelled"]


@BOTH_ENGINES
async def test_its_connection_is_used_again(client: AsyncOpenAI, simulator: Simulator) -> None:
    for _ in range(5):
        assert await text_of(client, "count:3")
        assert (await client.chat.completions.create(model="count:3", messages=HELLO)).choices
    assert len({seen.connection for seen in simulator.observer.seen}) == 1


async def test_its_own_retries_are_told_and_bounded(proxy: RunningProxy, simulator: Simulator) -> None:
    async with openai.AsyncOpenAI(base_url=proxy.base_url, api_key=CLIENT_KEY, max_retries=1) as client:
        with pytest.raises(openai.InternalServerError):
            await text_of(client, "html-error")
    # Three tries for its first request, two for its own retry.
    assert len(simulator.observer.seen) == 5


async def test_models(client: AsyncOpenAI) -> None:
    models = [model.id async for model in client.models.list()]
    assert {"ok", "vendor/ok"} <= set(models)
    assert (await client.models.retrieve("vendor/ok")).id == "vendor/ok"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("no-such")


async def test_a_wrong_model_is_a_404(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await client.chat.completions.create(model="no-such", messages=HELLO)
    assert raised.value.code == "model_not_found"


async def test_a_wrong_key_is_a_401(proxy: RunningProxy) -> None:
    async with openai.AsyncOpenAI(base_url=proxy.base_url, api_key="sk-wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await text_of(client, "ok")
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


@BOTH_ENGINES
async def test_embeddings(client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="any", input=["one", "two"], encoding_format="float")
    assert len(answer.data) == 2


async def test_a_call_that_is_named_in_every_fragment_has_one_name(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model="stutter-g3", messages=HELLO) as stream:
        completion = await stream.get_final_completion()
    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert (call.function.name, call.id.count("call_")) == ("get_weather", 1)
    assert json.loads(call.function.arguments)
    assert completion.choices[0].finish_reason == "tool_calls"
