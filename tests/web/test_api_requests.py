"""Requests as JSON: strict types, keys in any case, times, and hostile shapes."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import ApiCode
from gateway.mail.content_type import SNIFFED
from gateway.mail.transfer import encode_base64
from gateway.web.api import files, jsontypes
from gateway.web.api.errors import BadRequest
from gateway.web.api.jsontypes import format_time, parse_request, parse_time
from gateway.web.api.methods import METHODS
from gateway.web.api.models import File, SendRequest
from tests.counting import at_most


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"Tot": []}, """request: unknown key 'Tot'; did you mean "To"?"""),
        ({"To": [{"Adress": "x"}]}, """To[0]: unknown key 'Adress'; did you mean "Address"?"""),
        ({"zzz\r\n\x00": 1}, "request: unknown key 'zzz\\r\\n\\x00'; known are From, To, CC, BCC"),
        ({"k" * 1000: 1}, "request: unknown key '" + "k" * 40 + "...'; known are "),
        ({"Subject": 5}, "Subject: is a number; expected a string"),
        ({"Subject": ["x"]}, "Subject: is a list; expected a string"),
        ({"Subject": True}, "Subject: is true or false; expected a string"),
        ({"MessageID": {}}, "MessageID: is an object; expected a string"),
        ({"messageid": {}}, "MessageID: is an object; expected a string"),
        ({"To": "bob@example.com"}, "To: is a string; expected a list"),
        ({"To": {"Address": "x"}}, "To: is an object; expected a list"),
        ({"To": ["bob@example.com"]}, "To[0]: is a string; expected an object"),
        ({"To": [{"Address": 1}]}, "To[0].Address: is a number; expected a string"),
        ({"cc": [{}, {"ADDRESS": 1}]}, "CC[1].Address: is a number; expected a string"),
        ({"To": [None]}, "To[0]: is null; expected an object"),
        ({"References": [1]}, "References[0]: is a number; expected a string"),
        ({"Extra": {"a": 1}}, "Extra.a: is a number; expected a string"),
        ({"Extra": {"a\n": {}}}, "Extra.'a\\n': is an object; expected a string"),
        ({"Extra": []}, "Extra: is a list; expected an object"),
        ({"Headers": [["a"]]}, "Headers[0][1]: expected a list of a name and a value"),
        ({"Headers": [["a", "b", "c"]]}, "Headers[0]: expected a list of a name and a value"),
        ({"Headers": {"a": "b"}}, "Headers: is an object; expected a list"),
        ({"Headers": [["a", 1]]}, "Headers[0][1]: is a number; expected a string"),
        ({"RequireTLS": "true"}, "RequireTLS: is a string; expected true or false"),
        ({"RequireTLS": 1}, "RequireTLS: is a number; expected true or false"),
        ({"SaveSent": 0}, "SaveSent: is a number; expected true or false"),
        ({"FutureRelease": 1770000000}, "FutureRelease: is a number; expected a string"),
        ({"Date": "1770000000"}, "Date: not an RFC 3339 time such as "),
        ({"Date": "2026-02-30T00:00:00Z"}, "Date: there is no such date"),
        ({"AttachedFiles": [{"Data": 1}]}, "AttachedFiles[0].Data: is a number; expected a string"),
    ],
)
async def test_what_is_wrong_is_named(api: Any, form: str, fields: dict[str, Any], message: str) -> None:
    code, said = (await api.send(form, **fields)).error
    assert code == "protocol"
    assert said.startswith(message)
    assert not api.submitter.submitted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ('{"To":', "not valid JSON"),
        ("{} {}", "not valid JSON"),
        ('{"Text":"\\ud800"}', "not valid JSON"),
        ('{"Text":"\ud800"}', "not valid JSON"),
        ('{"Text":"a\nb"}', "not valid JSON"),
        ("[]", "request: is a list; expected an object"),
        ('"x"', "request: is a string; expected an object"),
        ("null", "request: is null; expected an object"),
        ("[" * 50_000, "not valid JSON"),
        ('{"To":' * 50_000, "not valid JSON"),
        ('{"To":' * 100_000, "more than 60000 values"),
        ('{"To":' + "[" * 150 + "]" * 150 + "}", "To[0]: is a list; expected an object"),
        ('{"to":' + "[" * 150 + "]" * 150 + "}", "To[0]: is a list; expected an object"),
        ('{"Text":' + "1" * 100_000 + "}", "not valid JSON"),
        ('{"To":[' + "0," * 70_000 + "0]}", "more than 60000 values"),
        ('{"To":[' + "{}," * 31_000 + "{}]}", "more than 60000 values"),
        ("[" + '""' * 200_000, "not valid JSON"),
        ("[" + '"",' * 200_000, "more than 60000 values"),
        ('{"Text":NaN}', "Text: is a number; expected a string"),
        ('{"text":NaN}', "Text: is a number; expected a string"),
        ('{"Text":"' + "," * 100_000, "not valid JSON"),
        ('{"Text":"' + "," * 100_000 + "\\", "not valid JSON"),
    ],
)
async def test_hostile_json(api: Any, form: str, text: str, says: str) -> None:
    with at_most(2_500_000):
        code, message = (await api.text("Send", text, form)).error
    assert code == "protocol"
    assert says in message


async def test_int_beyond_64_bits(api: Any) -> None:
    for number in ("9223372036854775808", "-9223372036854775809", "1" + "0" * 100):
        code, message = (await api.text("MessageGet", f'{{"MsgID":{number}}}')).error
        assert (code, message) == ("protocol", "MsgID: expected an integer of 64 bits")
    for number in ("1.5", "1.0", '"1"', "true"):
        code, message = (await api.text("MessageGet", f'{{"MsgID":{number}}}')).error
        assert code == "protocol"
        assert message.endswith("expected an integer")


async def test_commas_in_a_text_are_free(api: Any) -> None:
    for text in ("a,[{" * 100_000, ',"\\' * 100_000, "a,[{" * 600_000):
        assert (await api.send(Text=text)).status == 200


async def test_keys_in_any_case(api: Any, form: str) -> None:
    request = {
        "TO": [{"name": "Bob", "ADDRESS": "bob@example.com"}],
        "subject": "S",
        "teXt": "T",
        "messageid": "<a@b.example>",
        "extra": {"Key": "v", "key": "w"},
        "attachedfiles": [{"NAME": "f.txt", "data": "aGk="}],
    }
    answer = await api.call("Send", request, form)
    assert answer.json["MessageID"] == "<a@b.example>"
    assert api.last.extra == {"Key": "v", "key": "w"}
    assert b"To: Bob <bob@example.com>\r\n" in api.last.data


async def test_the_exact_key_is_preferred(api: Any) -> None:
    for text in ('{"Subject":"exact","SUBJECT":"other",', '{"SUBJECT":"other","Subject":"exact",'):
        await api.text("Send", text + '"Text":"x","To":[{"Address":"b@example.com"}]}')
        assert api.last.subject == "exact"


async def test_null_is_the_zero_value(api: Any, form: str) -> None:
    request = dict.fromkeys(SendRequest.model_fields) | {
        "Text": "x",
        "To": [{"Name": None, "Address": "b@c.example"}],
    }
    assert (await api.call("Send", request, form)).status == 200
    assert (await api.call("MessageGet", {"MsgID": None}, form)).error[0] == "messageNotFound"
    assert (await api.call("MessageGet", {}, form)).error[0] == "messageNotFound"


def test_every_request_model_refuses_unknown_keys() -> None:
    for method in METHODS.values():
        assert method.request.model_config["extra"] == "forbid"
        assert method.request.model_config["strict"] is True
        method.request.model_validate_json(json.dumps(method.example_request))
        method.request.model_json_schema()
        if method.response is not None:
            assert isinstance(method.example_response, method.response)
            method.response.model_json_schema(mode="serialization")


# --- Times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-01-31T08:00:00Z", datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ("2026-01-31T08:00:00+00:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ("2026-01-31T08:00:00.5-07:30", datetime(2026, 1, 31, 15, 30, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31T08:00:00.123456789Z", datetime(2026, 1, 31, 8, 0, 0, 123456, tzinfo=UTC)),
        ("2026-01-31T08:00:00.100000000Z", datetime(2026, 1, 31, 8, 0, 0, 100_000, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", None),
    ],
)
def test_times(text: str, value: datetime | None) -> None:
    assert parse_time(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-31",
        "2026-01-31T08:00:00",
        "2026-01-31 08:00:00Z",
        "2026-01-31T08:00Z",
        "2026-01-31t08:00:00z",
        "2026-01-31T08:00:00.Z",
        "2026-01-31T08:00:00.1234567890Z",
        "2026-01-31T08:00:00,5Z",
        "2026-01-31T08:00:00+0100",
        "2026-01-31T08:00:00+24:00",
        "2026-01-31T08:00:00+01:60",
        "2026-13-31T08:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T08:00:60Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "２026-01-31T08:00:00Z",
        "2026-01-31T08:00:00Z\n",
        " 2026-01-31T08:00:00Z",
    ],
)
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime(2026, 1, 31, 8, tzinfo=UTC), "2026-01-31T08:00:00Z"),
        (datetime(2026, 1, 31, 8, 0, 0, 500_000, tzinfo=UTC), "2026-01-31T08:00:00.5Z"),
        (datetime(2026, 1, 31, 8, 0, 10, 120, tzinfo=UTC), "2026-01-31T08:00:10.00012Z"),
        (
            datetime(2026, 1, 31, 8, tzinfo=timezone(timedelta(hours=-7, minutes=-30))),
            "2026-01-31T08:00:00-07:30",
        ),
        (datetime(2026, 1, 31, 8, tzinfo=timezone(timedelta(hours=5))), "2026-01-31T08:00:00+05:00"),
        (datetime(2026, 1, 31, 8, tzinfo=timezone(timedelta(seconds=30))), "2026-01-31T07:59:30Z"),
    ],
)
def test_times_in_answers(value: datetime, text: str) -> None:
    assert format_time(value) == text


@given(st.datetimes(timezones=st.timezones()))
def test_times_there_and_back(value: datetime) -> None:
    try:
        expected = value.astimezone(UTC)
    except OverflowError:
        return
    if expected.year > 1:
        assert parse_time(format_time(value)) == expected


# --- Base64 --------------------------------------------------------------------------------------


async def encoded(text: str) -> bytes:
    """What the message has of a file that came as this base64."""
    [file] = await files.read_files("attachedfile", "F", [File(Data=text)], ())
    assert base64.b64decode(text)[: SNIFFED + 1].startswith(file.data)
    return b"".join(file.encoded)


async def test_base64_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_DECODED", 57)
    monkeypatch.setattr(files, "_ENCODED", 76)
    for size in (0, 1, 56, 57, 58, 114, 600):
        data = bytes(range(256)) * 3
        text = base64.b64encode(data[:size]).decode()
        assert await encoded(text) == encode_base64(data[:size])
        broken = "\r\n".join(text[start : start + 64] for start in range(0, len(text), 64))
        assert await encoded(broken) == encode_base64(data[:size])
    for wrong in (
        "aGVsbA==aGVsbA==",
        "a",
        "aGVsb",
        "aGVs bG8=",
        "aGVs-_==",
        "====",
        "a===",
        "aGVé",
        "aGV=\0",
        "=aGV",
    ):
        with pytest.raises(BadRequest, match=r"^F\[0\].Data: is not base64"):
            await encoded(wrong)


# --- Fuzzing -------------------------------------------------------------------------------------

_ANY_FIXTURE = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=15,
)
_TEXT = st.text(max_size=20) | st.sampled_from(
    ["bob@example.com", "<a@b>", "a\r\nb", "2026-01-31T08:00:00Z", "aGk="]
)
_ENTRY = st.dictionaries(
    st.sampled_from(["Name", "Address", "name", "ContentType", "ContentID", "Data"]),
    _TEXT | _JSON,
    max_size=3,
)
_REQUEST = st.dictionaries(
    st.sampled_from([*SendRequest.model_fields, "to", "SUBJECT", "nope"]),
    _TEXT
    | _JSON
    | st.lists(_ENTRY, max_size=3)
    | st.lists(st.lists(_TEXT, min_size=2, max_size=2), max_size=2),
    max_size=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=_ANY_FIXTURE)
@given(_REQUEST, st.booleans())
def test_no_json_gives_a_500(api: Any, request_: dict[str, Any], plausible: bool) -> None:
    if plausible:
        request_ = {"To": [{"Address": "bob@example.com"}], "Text": "x"} | request_
    answer = trio.run(api.call, "Send", request_)
    assert answer.status in (200, 400)
    if answer.status == 400:
        assert answer.error[0] in get_args(ApiCode)


@settings(max_examples=100, deadline=None, suppress_health_check=_ANY_FIXTURE)
@given(st.binary(max_size=60))
def test_no_bytes_give_a_500(api: Any, data: bytes) -> None:
    for content_type in (
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=b",
    ):
        for body in (data, b"request=" + data, b"--b\r\n" + data):
            answer = trio.run(api.raw, "Send", content_type, body)
            assert answer.error[0] in set(get_args(ApiCode)) - {"server", "error"}


def test_shapes_are_cached() -> None:
    assert jsontypes.shape_of(SendRequest) is jsontypes.shape_of(SendRequest)


async def test_many_escapes_are_parsed_beside_the_loop(api: Any) -> None:
    text = '{"To":[{"Address":"b@example.com"}],"%s":"' + "\\u00e4" * 600_000 + '"}'
    assert (await api.text("Send", text % "Text")).status == 200
    assert api.offload.runs == ["parse_beside"]
    assert (await api.text("Send", text % "Nope")).error[0] == "protocol"


async def test_case_variants_parse_the_same(api: Any) -> None:
    plain = b'{"To":[{"Address":"a@b.c"}],"Date":"2026-01-31T08:00:00.25Z"}'
    other = b'{"tO":[{"address":"a@b.c"}],"DATE":"2026-01-31T08:00:00.25Z"}'
    first = await parse_request(SendRequest, plain, api.offload)
    assert first == await parse_request(SendRequest, other, api.offload)
