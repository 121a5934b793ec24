import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.smtp.data import DataDecoder, DataEncoder, DataFault


def decode(chunks: list[bytes], **limits: int | None) -> tuple[bytes, DataDecoder]:
    decoder, message, rest = DataDecoder(**limits), b"", b""
    for chunk in chunks:
        if decoder.finished:
            rest += chunk
        else:
            message += decoder.feed(chunk)
    decoder.rest += rest
    return message, decoder


def encode(chunks: list[bytes]) -> bytes:
    encoder = DataEncoder()
    return b"".join([encoder.feed(chunk) for chunk in chunks]) + encoder.finish()


def splits(data: bytes) -> list[list[bytes]]:
    """The data whole, byte by byte, and cut in two at every place."""
    two = [[data[:index], data[index:]] for index in range(1, len(data))]
    return [[data], [data[index : index + 1] for index in range(len(data))], *two]


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"...\r\n.\r\n", b"..\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a\r\n..\r\n..b\r\n.\r\n", b"a\r\n.\r\n.b\r\n"),
        (b"a.\r\n.\r\n", b"a.\r\n"),
        (b"a\r\n\r\n\r\n.\r\n", b"a\r\n\r\n\r\n"),
        (b"a\r\n.b\r\n.\r\n", b"a\r\nb\r\n"),
        (b"nul\0\r\n.\r\n", b"nul\0\r\n"),
    ],
)
def test_decode(wire: bytes, message: bytes) -> None:
    for trailing in (b"", b"QUIT\r\n", b".\r\n"):
        for chunks in splits(wire + trailing):
            decoded, decoder = decode(chunks)
            assert decoded == message
            assert decoder.finished
            assert decoder.fault is None
            assert decoder.rest == trailing
            assert decoder.size == len(message)
            assert decoder.received == len(wire)


LINE_ENDS = (b"\n", b"\r", b"\r\n")
NULS = (b"\0.", b".\0", b"\0.\0")
SMUGGLING = [
    before + dot + after
    for before, dot, after in itertools.product((*LINE_ENDS, b""), (b".", *NULS), LINE_ENDS)
    if (before, dot, after) not in ((b"\r\n", b".", b"\r\n"), (b"", b".", b"\r\n"))
] + [
    b"\r\n.\r\r\n",
    b"\r\r\n.\n\r\n",
    b"\n\r.\r\n",
    b"\r\n.\n\r\n",
    b"\n.\r\n.\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
]


@pytest.mark.parametrize("sequence", SMUGGLING, ids=repr)
def test_smuggling(sequence: bytes) -> None:
    """Nothing but CRLF.CRLF ends the data, however it is cut; what has a bare CR or LF is refused."""
    wire = b"a" + sequence + b"MAIL FROM:<evil@x>\r\n.\r\n"
    bare = wire.count(b"\r\n") != wire.count(b"\r") or wire.count(b"\r\n") != wire.count(b"\n")
    for chunks in splits(wire + b"NOOP\r\n"):
        message, decoder = decode(chunks)
        assert decoder.finished
        assert decoder.rest == b"NOOP\r\n"
        assert decoder.received == len(wire)
        if bare:
            assert decoder.fault is DataFault.BARE_CR_OR_LF
        else:
            assert decoder.fault is None
            assert message.endswith(b"MAIL FROM:<evil@x>\r\n")


def test_the_matrix_has_every_classic_variant() -> None:
    for variant in (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\n.\r", b"\r.\n"):
        assert variant in SMUGGLING


def test_bare_line_end_at_the_very_end() -> None:
    for wire in (b"a\r\r\n.\r\n", b"a\n\r\n.\r\n", b"\n.\r\n\r\n.\r\n"):
        for chunks in splits(wire):
            _, decoder = decode(chunks)
            assert decoder.finished
            assert decoder.fault is DataFault.BARE_CR_OR_LF


@pytest.mark.parametrize("before", [b"", b"short\r\n", b"x" * 10 + b"\r\n"])
@pytest.mark.parametrize("after", [b"", b"short\r\n"])
@pytest.mark.parametrize(
    ("line", "too_long"),
    [(b"x" * 10, False), (b"x" * 11, True), (b"." + b"." * 10, False), (b"x" * 40, True)],
)
def test_line_length(before: bytes, line: bytes, after: bytes, too_long: bool) -> None:
    wire = before + line + b"\r\n" + after + b".\r\n"
    for chunks in splits(wire):
        _, decoder = decode(chunks, max_line=10)
        assert decoder.finished
        assert (decoder.fault is DataFault.LINE_TOO_LONG) == too_long


def test_line_length_unlimited() -> None:
    message, decoder = decode([b"x" * 5000 + b"\r\n.\r\n"])
    assert len(message) == 5002
    assert decoder.fault is None


def test_size_limit() -> None:
    for length, too_large in ((8, False), (9, True)):
        for chunks in splits(b".." + b"x" * (length - 1) + b"\r\n.\r\n"):
            message, decoder = decode(chunks, max_size=10)
            assert decoder.finished
            assert (decoder.fault is DataFault.TOO_LARGE) == too_large
            assert len(message) <= 10


def test_refused_data_is_not_kept() -> None:
    decoder = DataDecoder(max_size=10)
    for _ in range(100):
        assert len(decoder.feed(b"x" * 1000)) == 0
    assert decoder.fault is DataFault.TOO_LARGE
    assert not decoder.finished


MESSAGES = st.lists(st.sampled_from([b".", b"..", b"\r\n", b"a", b"\0", b"\xff", b"\r\n."]), max_size=30).map(
    b"".join
)


@settings(deadline=None)
@given(MESSAGES, st.data())
def test_round_trip(message: bytes, data: st.DataObject) -> None:
    def cut(content: bytes) -> list[bytes]:
        places = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
        return [content[start:end] for start, end in itertools.pairwise([0, *places, len(content)])]

    wire = encode(cut(message))
    assert wire.find(b"\r\n.\r\n") in (-1, len(wire) - 5)
    decoded, decoder = decode(cut(wire + b"rest"))
    assert decoder.finished
    assert decoder.fault is None
    assert decoder.rest == b"rest"
    assert decoded == (message if message.endswith(b"\r\n") or not message else message + b"\r\n")


@pytest.mark.parametrize("message", [b"a\nb", b"a\rb", b"a\r", b"\n", b"\r\r\n", b"a\n\r\n", b"\r\n.\n"])
def test_encoder_refuses_bare_line_ends(message: bytes) -> None:
    for chunks in splits(message):
        with pytest.raises(ValueError, match="bare CR"):
            encode(chunks)


@settings(deadline=None)
@given(st.lists(st.sampled_from([b".", b"\r", b"\n", b"\r\n", b"a" * 12, b"b"]), max_size=20).map(b"".join))
def test_decoder_agrees_with_a_plain_reading(content: bytes) -> None:
    """The same result as splitting the whole into lines, for any content and any cut."""
    wire = content + b"\r\n.\r\n"
    end = 0 if wire.startswith(b".\r\n") else wire.index(b"\r\n.\r\n") + 2
    lines = wire[:end].split(b"\r\n")[:-1]
    expected = b"".join((line[1:] if line.startswith(b".") else line) + b"\r\n" for line in lines)
    bare = any(b"\r" in line or b"\n" in line for line in lines)
    for chunks in splits(wire):
        message, decoder = decode(chunks)
        assert decoder.finished
        assert decoder.rest == wire[end + 3 :]
        assert (decoder.fault is DataFault.BARE_CR_OR_LF) == bare
        if not bare:
            assert message == expected
