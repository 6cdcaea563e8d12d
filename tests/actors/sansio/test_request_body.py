"""What is read of a request's body, and the one value that may be replaced in it (FAULTS rows 46 to 49)."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as hs

from actors import BadRequest, RequestFacts, read_request
from actors.sansio.request_body import MAX_DEPTH, replace_model


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        (b'{"model":"m"}', RequestFacts("m", False, 1)),
        (b'{"model":"m","stream":true,"n":3}', RequestFacts("m", True, 3)),
        (b' \n{"stream": null, "n": null, "model": "org/m:7b"}\n', RequestFacts("org/m:7b", False, 1)),
        (b'{"model":"a","model":"b"}', RequestFacts("b", False, 1)),  # row 48: the last one counts
        ('{"model":"\u00fc","messages":[{"content":"\u6f22"}]}'.encode(), RequestFacts("\u00fc", False, 1)),
    ],
)
def test_it_reads_what_decides_the_handling(body: bytes, facts: RequestFacts) -> None:
    assert read_request(body) == facts


@pytest.mark.parametrize(
    ("body", "param", "text"),
    [
        (b"", None, "empty"),
        (b"  \n", None, "empty"),
        (b'{"model":"m",}', None, "line 1 column 14"),
        (b'{"model":\n"m"', None, "line 2"),
        (b"[]", None, "must be a JSON object"),
        (b'"m"', None, "must be a JSON object"),
        (b"null", None, "must be a JSON object"),
        (b'{"model":"\xff"}', None, "not valid JSON"),
        ('{"model":"m"}'.encode("utf-16"), None, "not valid JSON"),
        ('{"model":"m"}'.encode("utf-16-le"), None, "not valid JSON"),
        (b"\xef\xbb\xbf{}", None, "not valid JSON"),
        (b'{"model":"m","x":' + b"9" * 5000 + b"}", None, "not valid JSON"),
        (b"{}", "model", "must provide a model"),
        (b'{"model":""}', "model", "must provide a model"),
        (b'{"model":7}', "model", "must be a string"),
        (b'{"model":"m","stream":"true"}', "stream", "true, false or null"),
        (b'{"model":"m","stream":1}', "stream", "true, false or null"),
        (b'{"model":"m","n":0}', "n", "1 to 128"),
        (b'{"model":"m","n":129}', "n", "1 to 128"),
        (b'{"model":"m","n":true}', "n", "1 to 128"),
        (b'{"model":"m","n":1.0}', "n", "1 to 128"),
    ],
)
def test_it_refuses_what_cannot_be_served_and_says_what_to_change(body: bytes, param: str | None, text: str) -> None:
    with pytest.raises(BadRequest, match=text) as caught:
        read_request(body)
    assert caught.value.param == param


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"\\"":'])
def test_deep_nesting_is_refused_before_a_parser_sees_it(opening: bytes) -> None:
    with pytest.raises(BadRequest, match="deeper than 256"):
        read_request(b'{"model":"m","x":' + opening * 100_000)


def test_brackets_in_strings_and_side_by_side_are_not_depth() -> None:
    text = json.dumps({"model": "m", "content": "[{" * 5000 + '"\\', "list": [[]] * 500, "deep": json.loads("[" * 250 + "]" * 250)})
    assert read_request(text.encode()).model == "m"
    assert MAX_DEPTH == 256


# ---- renaming the model -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"m"}', b'{"model":"new"}'),
        (b'{ "model" :\t"m" , "x": 1.50 }', b'{ "model" :\t"new" , "x": 1.50 }'),
        (b'{"model":"a","model":"b"}', b'{"model":"new","model":"new"}'),
        (b'{"model":null,"model":"b"}', b'{"model":"new","model":"new"}'),
        (b'{"model": {"model": "x", "y": [1]} ,"model":"b"}', b'{"model": "new" ,"model":"new"}'),
        (b'{"model":12\n,"model":"b"}', b'{"model":"new"\n,"model":"new"}'),
        (b'{"\\u006dodel":"b"}', b'{"\\u006dodel":"new"}'),
        (b'{"x":{"model":"inner"},"y":["model","model"],"model":"m"}', b'{"x":{"model":"inner"},"y":["model","model"],"model":"new"}'),
        (b'{"x":"model","model":"m","z":"\\"model\\":\\"q\\""}', b'{"x":"model","model":"new","z":"\\"model\\":\\"q\\""}'),
        (b'{"model":"a\\"b\\\\","z":1}', b'{"model":"new","z":1}'),
    ],
)
def test_each_top_level_model_is_replaced_and_every_other_byte_stays(body: bytes, expected: bytes) -> None:
    assert replace_model(body, "new") == expected


def test_any_name_can_be_put_in() -> None:
    assert json.loads(replace_model(b'{"model":"m"}', 'a"\\\n\u6f22')) == {"model": 'a"\\\n\u6f22'}


JSON = hs.recursive(
    hs.none()
    | hs.booleans()
    | hs.integers()
    | hs.floats(allow_nan=False)
    | hs.text(max_size=8)
    | hs.sampled_from(["model", '"', "\\", "{"]),
    lambda inner: hs.lists(inner, max_size=4) | hs.dictionaries(hs.text(max_size=4) | hs.just("model"), inner, max_size=4),
    max_leaves=20,
)


@given(hs.dictionaries(hs.text(max_size=6), JSON, max_size=6), hs.text(min_size=1, max_size=8), hs.sampled_from([None, 1]), hs.booleans())
def test_only_the_model_differs_afterwards(fields: dict[str, object], model: str, indent: int | None, ascii_only: bool) -> None:
    fields = {**fields, "model": "old"}
    body = json.dumps(fields, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert json.loads(replace_model(body, model)) == {**fields, "model": model}


@given(hs.binary(max_size=60) | hs.text(max_size=40).map(str.encode))
def test_anything_else_is_refused_not_crashed_on(body: bytes) -> None:
    try:
        facts = read_request(body)
    except BadRequest:
        return
    assert facts.model


class Never:
    """A decoder that takes nothing."""

    def decode(self, body: bytes) -> object:
        raise msgspec.DecodeError


def told(body: bytes) -> object:
    try:
        return repr(read_request(body))
    except BadRequest as bad:
        return str(bad), bad.param, bad.code


#: Strings, then numbers, then the rest; bounded by spaces.
_STRINGS = [
    *rb""" "m" "\ud83d" "\ude00" "\ud83d\ude00" "\ud83d\u0041" "\ude00\ud83d" "\x" "\/\b" "\u00" "" '' """.split(),
    b'"\xed\xa0\x80"',
    b'"\xff"',
    b'"\xf0\x9f\x98\x80"',
    b'"\t"',
    b'"\x00"',
    b'"\x7f"',
    b'"',
]
_NUMBERS = [*b"NaN -Infinity 1 01 -0 - 1. .5 1.0 +1 1E2 1e400 -1e-999".split(), b"9" * 18, b"9" * 25, b"9" * 5000, b"1" * 400 + b".5"]
_VALUES = hs.sampled_from([*_STRINGS, *_NUMBERS, *b"true True null nul [] [1,] {} [[1],2]".split()])
_KEYS = hs.sampled_from(
    [b'"model"', b'"mod\\u0065l"', b'"stream"', b'"n"', b'"temperature"', b'"seed"', b'"x"', b"x", b'"response_format"']
)
_SPACES = hs.sampled_from([b"", b"", b" ", b"\n", b"\x0c", b"\xc2\xa0", b"\xef\xbb\xbf"])


@given(hs.lists(hs.tuples(_SPACES, _KEYS, _SPACES, _VALUES), max_size=5), hs.sampled_from([b"}", b"", b"}x", b",}", b"} "]))
@example([(b"", b'"model"', b"", b'"m"'), (b"", b'"temperature"', b"", b"0")], b"}")
def test_the_quick_way_to_read_decides_nothing_else_than_the_slow_one(fields: list[tuple[bytes, bytes, bytes, bytes]], end: bytes) -> None:
    body = b"{" + b",".join(before + key + b":" + between + value for before, key, between, value in fields) + end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("actors.sansio.request_body._QUICK", Never())
        slowly = told(body)
    assert told(body) == slowly
