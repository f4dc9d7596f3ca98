"""Reading answers from bytes: split anywhere, interim and surplus responses, broken bodies, limits; and Retry-After."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.http.reader import Answer, Lost, ResponseReader
from relay.http.response import kind_of_status, retry_after_seconds

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LIMIT = 100

REGULAR = {
    "content-length": OK,
    "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no reason": b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "204 that says zero": b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
    "chunk extension": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n",
    "trailers": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\nz: w\r\n\r\n",
    "after 103": b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK,
    "after 100 and 102": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK,
    "500": b"HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\nok",
    "gzip that is none": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nok",
}

STATUS_STANDS = {
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/1.0 keep-alive": b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
    "connection: close": b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
    "E6 204 with a body": b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n",
    "E6 204 with chunks": b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
    "E6 205": b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n",
    "E8 304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "E26 bad chunk size": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    "E26 huge chunk size": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\n",
    "E23 body beyond the excerpt": b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n" + b"x" * (LIMIT + 1),
    "E32 extra response": OK + OK,
    "E32 extra line end": OK + b"\r\n",
    "E32 garbage after it": OK + b"garbage",
    "E32 after chunks": REGULAR["chunked"] + OK,
    "E32 after connection: close": b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" + OK,
}

UNFINISHED = {
    "E24 content-length longer than the body": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok",
    "close-delimited": b"HTTP/1.1 200 OK\r\n\r\nok",
    "chunk cut": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nok",
    "chunked is not last": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\nok",
    "endless trailers": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + b"a: b\r\n" * 999,
}

_many = b"".join(b"x-%d: y\r\n" % n for n in range(101))
PROTOCOL = {
    "E18 status 999": b"HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n",
    "E18 status 600": b"HTTP/1.1 600 X\r\ncontent-length: 0\r\n\r\n",
    "E18 status 000": b"HTTP/1.1 000 X\r\ncontent-length: 0\r\n\r\n",
    "E18 status 099": b"HTTP/1.1 099 X\r\ncontent-length: 0\r\n\r\n",
    "E18 status 2": b"HTTP/1.1 2 X\r\ncontent-length: 0\r\n\r\n",
    "E18 status 20x": b"HTTP/1.1 20x X\r\ncontent-length: 0\r\n\r\n",
    "E18 status 200200": b"HTTP/1.1 200200 X\r\ncontent-length: 0\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "E27 a line of 100 kB": b"HTTP/1.1 200 OK\r\na: " + b"x" * 100_000 + b"\r\n\r\n",
    "E27 100 kB of headers": b"HTTP/1.1 200 OK\r\n" + b"a: bbbbbbbbbbbb\r\n" * 6000 + b"\r\n",
    "E5 1xx for ever": b"HTTP/1.1 102 Processing\r\n\r\n" * 21,
    "101": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "101 in an untidy head": b"HTTP/1.1 101 X\r\nupgrade: x\r\nx : y\r\n\r\n" + OK,
    "two ends of a head": b"HTTP/1.1 200 OK\r\nx : y\r\n\nHTTP/1.1 500 X\r\n\r\n",
    "two ends of an interim head": b"HTTP/1.1 103 X\r\nx: y\n\n" + OK,
    "interim heads of line feeds": b"HTTP/1.1 103 X\n\n" + OK,
    "untidy 1xx for ever": b"HTTP/1.1 102 Processing\r\nx : y\r\n\r\n" * 21 + OK,
    "an untidy status 999": b"HTTP/1.1  999 OK\r\nx : y\r\n\r\n",
    "an untidy status 2000": b"HTTP/1.1  2000 OK\r\nx : y\r\n\r\n",
    "an untidy 100 kB of headers": b"HTTP/1.1 200 OK\r\n" + b"a : bbbbbbbbbbbb\r\n" * 6000 + b"\r\n",
}

_429 = b"HTTP/1.1 429 Slow down\r\nretry-after: 7\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n"
UNTIDY = {
    "E27 obs-fold": _429 + b"a: b\r\n c\r\ncontent-length: 2\r\n\r\nok",
    "E27 obs-fold of Retry-After": b"HTTP/1.1 429 X\r\nretry-after:\r\n 7\r\n\r\n",
    "E27 line feeds only": b"HTTP/1.1 429 X\nretry-after: 7\ncontent-length: 2\n\nok",
    "E27 NUL in a value": _429 + b"a: b\0c\r\ncontent-length: 0\r\n\r\n",
    "E27 101 headers": _429 + _many + b"content-length: 0\r\n\r\n",
    "E27 5,000 headers": _429 + b"a: b\r\n" * 5_000 + b"content-length: 0\r\n\r\n",
    "the same length twice": _429 + b"content-length: 2\r\ncontent-length: 2\r\n\r\nok",
    "the same length as a list": _429 + b"content-length: 2, 2\r\n\r\nok",
    "two lengths": _429 + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "length and chunks": _429 + b"content-length: 2\r\n" + _CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n",
    "chunks and length": _429 + _CHUNKED + b"content-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "identity": _429 + b"transfer-encoding: identity\r\n\r\nok",
    "identity and length": _429 + b"Transfer-Encoding: Identity\r\ncontent-length: 2\r\n\r\nok",
    "signed length": _429 + b"content-length: +2\r\n\r\nok",
    "negative length": _429 + b"content-length: -1\r\n\r\n",
    "empty length": _429 + b"content-length:\r\n\r\n",
    "length in words": _429 + b"content-length: two\r\n\r\nok",
    "length beyond numbers": _429 + b"content-length: " + b"9" * 30 + b"\r\n\r\nok",
    "space before the colon": _429 + b"content-length : 2\r\n\r\nok",
    "space before the colon of Retry-After": b"HTTP/1.1 429 X\r\nRetry-After\t: 7\r\n\r\n",
    "no colon": _429 + b"garbage\r\n\r\n",
    "no name": _429 + b": x\r\n\r\n",
    "a name that is no token": _429 + b"x(y): z\r\n\r\n",
    "a name in UTF-8": _429 + b"x-\xc3\xa4: z\r\n\r\n",
    "a space first": b"HTTP/1.1 429 X\r\n a: b\r\nretry-after: 7\r\n\r\n",
    "a control character": _429 + b"a: b\x01c\r\n\r\n",
    "one line feed": _429 + b"a: b\nc: d\r\n\r\n",
    "one carriage return": _429 + b"a: b\rc: d\r\n\r\n",
    "two spaces before the status": b"HTTP/1.1  429 X\r\nretry-after: 7\r\n\r\n",
    "a tab after the status": b"HTTP/1.1 429\tX\r\nretry-after: 7\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 429 X\r\nretry-after: 7\r\n\r\n",
    "a line end first": b"\r\nHTTP/1.1 429 X\r\nretry-after: 7\r\nx : y\r\n\r\n",
    "after an interim one": b"HTTP/1.1 103 E\r\nx: y\r\n\r\n" + _429 + b"x : y\r\n\r\n",
    "after an untidy interim one": b"HTTP/1.1 103 E\r\nx : y\r\n z\r\n\r\n" + _429 + b"\r\n",
}
"""Each asks for seven seconds with a 429, in a head that httptools refuses or that we find untidy."""


def _read(reader: ResponseReader, pieces: list[bytes]) -> Answer | Lost | None:
    """Feed pieces as a connection would: it stops after the result, and closes at a byte that comes later."""
    result = None
    for piece in pieces:
        if result is not None:
            return Answer(result.status, result.head, result.body, False) if isinstance(result, Answer) else result
        result = reader.feed(piece)
    return result


def _split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("data", REGULAR.values(), ids=REGULAR)
def test_a_regular_answer_leaves_the_connection_reusable(data: bytes) -> None:
    reader = ResponseReader(LIMIT)
    for _ in range(3):
        reader.begin()
        answer = reader.feed(data)
        assert isinstance(answer, Answer)
        assert answer.reusable
        assert answer.body in (b"ok", b"")
        assert data.endswith(answer.head + data.rpartition(b"\r\n\r\n")[2]) or b"chunked" in answer.head


@pytest.mark.parametrize("data", STATUS_STANDS.values(), ids=STATUS_STANDS)
def test_after_an_irregular_answer_the_status_stands_and_the_connection_goes(data: bytes) -> None:
    answer = ResponseReader(LIMIT).feed(data)
    assert isinstance(answer, Answer)
    assert not answer.reusable
    assert b" %d" % answer.status in data
    assert len(answer.body) <= LIMIT


@pytest.mark.parametrize("data", UNFINISHED.values(), ids=UNFINISHED)
def test_a_status_stands_when_its_body_never_ends(data: bytes) -> None:
    reader = ResponseReader(LIMIT)
    assert reader.feed(data) is None
    answer = reader.give_up("connection", "closed")
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body, answer.reusable) == (200, b"ok", False)


@pytest.mark.parametrize("data", PROTOCOL.values(), ids=PROTOCOL)
def test_what_is_not_http_is_a_protocol_failure(data: bytes) -> None:
    lost = ResponseReader(LIMIT).feed(data)
    assert isinstance(lost, Lost)
    assert (lost.kind, lost.received) == ("protocol", data[:LIMIT])


@pytest.mark.field("F05")
@pytest.mark.case("E27")
@pytest.mark.parametrize("data", UNTIDY.values(), ids=UNTIDY)
def test_an_untidy_head_is_judged_by_its_status_and_ends_the_connection(data: bytes) -> None:
    for status in (429, 200, 204, 410, 500, 503):
        answer = ResponseReader(LIMIT).feed(data.replace(b"429", b"%d" % status))
        assert isinstance(answer, Answer)
        assert (answer.status, answer.reusable) == (status, False)
        if status in (429, 503):
            assert retry_after_seconds(status, answer.head) == 7
        assert len(answer.body) <= LIMIT


@pytest.mark.field("F05")
@pytest.mark.parametrize("data", UNTIDY.values(), ids=UNTIDY)
def test_an_untidy_head_is_judged_when_it_is_whole_and_not_before(data: bytes) -> None:
    reader, head = ResponseReader(LIMIT), ResponseReader(LIMIT).feed(data)
    assert isinstance(head, Answer)
    end = data.index(head.head) + len(head.head)
    before = [reader.feed(data[at : at + 1]) for at in range(end - 1)] if end < 1000 else [reader.feed(data[: end - 1])]
    assert set(before) == {None}
    assert isinstance(reader.give_up("timeout", "too late"), Lost), "half a head is no answer"
    whole = reader.feed(data[end - 1 : end])
    assert isinstance(whole, Answer)
    assert (whole.status, whole.reusable) == (429, False)


@pytest.mark.case("E26")
@pytest.mark.parametrize(("start", "more"), [(b"0\r\n", b"a: b\r\n"), (b"5;", b"x" * 6)], ids=["trailers", "extension"])
def test_framing_without_end_is_cut(start: bytes, more: bytes) -> None:
    reader = ResponseReader(LIMIT)
    assert reader.feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + start) is None
    answer = next(filter(None, (reader.feed(more * 1000) for _ in range(20))), None)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.reusable) == (200, False)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_without_a_final_status_the_reason_of_the_end_is_the_failure(data: bytes) -> None:
    reader = ResponseReader(LIMIT)
    assert reader.feed(data) is None
    assert reader.give_up("timeout", "too late") == Lost("timeout", "too late", data)


ALL = REGULAR | STATUS_STANDS | PROTOCOL | UNTIDY


@given(st.sampled_from(sorted(ALL)), st.lists(st.integers(0, 200_000), max_size=12))
@settings(max_examples=300)
@example("E32 extra line end", [len(OK)])
@example("E6 204 with a body", [48])
def test_where_the_bytes_are_split_changes_nothing(name: str, cuts: list[int]) -> None:
    whole = ResponseReader(LIMIT).feed(ALL[name])
    split = _read(ResponseReader(LIMIT), _split(ALL[name], cuts))
    assert type(split) is type(whole)
    if isinstance(whole, Answer) and isinstance(split, Answer):
        assert (split.status, split.head, split.reusable) == (whole.status, whole.head, whole.reusable)
        assert whole.body.startswith(split.body)
    else:
        assert isinstance(split, Lost)
        assert split.kind == "protocol"


@given(
    st.lists(st.sampled_from(sorted(ALL.values())) | st.binary(max_size=30), max_size=4).map(b"".join),
    st.integers(1, 9),
)
@settings(max_examples=300)
def test_any_bytes_end_in_an_answer_a_loss_or_a_wait(data: bytes, pieces: int) -> None:
    reader = ResponseReader(LIMIT)
    result = _read(reader, _split(data, list(range(0, len(data), len(data) // pieces + 1))))
    result = result or reader.give_up("timeout", "")
    assert isinstance(result, Lost) or (200 <= result.status <= 599 and b"HTTP/1." in result.head)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, "delivered"), (206, "delivered"), (299, "delivered"), (304, "http_3xx"), (410, "http_4xx")],
)
def test_only_2xx_is_delivered(status: int, kind: str) -> None:
    assert kind_of_status(status) == kind


FRACTIONS = {
    "3.7": 4, "0.493": 1, "292.05": 293, "1.5": 2, "3.0": 3, "3.": 3, ".5": 1, "0.0": 0, "7.000000001": 8, "0003.7": 4,
    "86400.1": 86_400, "0." + "0" * 4000 + "1": 1,
}  # fmt: skip


@pytest.mark.case("E13")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 120 ", 120),
        ("0", 0),
        ("86401", 86_400),
        ("999999999999", 86_400),
        pytest.param("99999999999999999999", None, marks=pytest.mark.field("F116")),
        pytest.param("0000000000000000000000000000120", 120, marks=pytest.mark.field("F116")),
        pytest.param("00", 0, marks=pytest.mark.field("F116")),
        *(pytest.param(value, seconds, marks=pytest.mark.field("F06")) for value, seconds in FRACTIONS.items()),
        ("Wed, 21 Oct 2015 07:30:00 GMT", 120),
        ("Wednesday, 21-Oct-15 07:30:00 GMT", 120),
        ("Wed Oct 21 07:30:00 2015", 120),
        ("Tue, 20 Oct 2015 07:30:00 GMT", 0),
        ("Wed, 21 Oct 2099 07:30:00 GMT", 86_400),
        ("-5", None),
        ("1.5.5", None),
        ("1,5", None),
        (".", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("soon", None),
        ("", None),
        ("Wed, 99 Foo 2015 07:30:00 GMT", None),
        ("Wed, 21 Oct 2015 07:30:00 -0000", 120),
        ("Wed, 21 Oct 2015 07:30:00 +99999", None),
        ("2015-10-21T07:30:00Z", None),
        pytest.param("9" * 4000, None, marks=pytest.mark.field("F116")),
        ("Wed, 21 Oct 2015 07:30:00 +0000", 120),
        ("Wed, 21 Oct 2015 07:30:00 UTC", 120),
        ("21 Oct 2015 07:30:00 GMT", 120),
        ("Thu Oct  1 07:30:00 2015", 0),
        ("Wed, 21 Oct 2015 07:29:60 GMT", 120),
        ("Wed, 21 Oct 2015 25:30:00 GMT", None),
        ("Wed, 21 Oct 2015 07:61:00 GMT", None),
        ("Sat, 31 Feb 2015 07:30:00 GMT", None),
        ("+120", None),
        ("0x78", None),
        ("120, 60", None),
        ("120;q=1", None),
        ("\xb2", None),
    ],
)
def test_retry_after_is_understood_or_ignored(value: str, seconds: float | None) -> None:
    head = f"HTTP/1.1 429 X\r\nDate: Wed, 21 Oct 2015 07:28:00 GMT\r\nretry-AFTER: {value}\r\n\r\n".encode("latin-1")
    assert retry_after_seconds(429, head) == retry_after_seconds(503, head) == seconds


@pytest.mark.field("F116")
@pytest.mark.case("E13")
def test_of_two_retry_afters_the_longer_counts() -> None:
    """The field is no list (RFC 9110, 10.2.3), and nothing says which is right: too early may do harm."""
    date = b"Wed, 21 Oct 2015 07:30:00 GMT"
    for first, seconds in ((b"120", 120), (b"soon", 60), (b"59.5", 60), (b"0", 60), (date, 120), (b"9" * 20, 60)):
        for one, other in ((first, b"60"), (b"60", first)):
            head = (
                b"HTTP/1.1 429 X\r\ndate: Wed, 21 Oct 2015 07:28:00 GMT\r\nretry-after: %b\r\nretry-after: %b\r\n\r\n"
            )
            assert retry_after_seconds(429, head % (one, other)) == seconds


@pytest.mark.case("E16")
def test_retry_after_counts_only_with_429_and_503() -> None:
    head = b"HTTP/1.1 200 OK\r\nretry-after: 120\r\n\r\n"
    assert [retry_after_seconds(status, head) for status in (200, 301, 404, 500, 502)] == [None] * 5


@given(st.text(st.characters(max_codepoint=0xFF), max_size=40))
@settings(max_examples=200)
def test_no_retry_after_breaks_the_sender(value: str) -> None:
    seconds = retry_after_seconds(503, b"HTTP/1.1 503 X\r\nretry-after: " + value.encode("latin-1") + b"\r\n\r\n")
    assert seconds is None or 0 <= seconds <= 86_400


LINES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 500 X\r\n", b"HTTP/1.1 103 E\r\n", b"HTTP/1.0 200 K\r\n", b"HTTP/1.1 204 N\r\n",
    b"HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n", b"HTTP/1.1 200\r\n", b"content-length: 4\r\n",
    b"content-length: 0\r\n", b"content-length: 4, 4\r\n", b"transfer-encoding: chunked\r\n", b" folded\r\n",
    b"a: b\r\n", b"transfer-encoding: gzip, chunked\r\n", b"4\r\nbody\r\n", b"0\r\n\r\n", b"\r\n", b"\n", b"\r",
    b"\0", b"body",
]  # fmt: skip


@given(pieces=st.lists(st.sampled_from(LINES), min_size=1, max_size=8))
@settings(max_examples=500)
def test_another_reader_never_reads_another_status_from_the_same_bytes(pieces: list[bytes]) -> None:
    """h11 may refuse what is taken here, or take what is refused here."""
    data = b"".join(pieces)
    reader = ResponseReader(16_384)
    ours = reader.feed(data) or reader.give_up("connection", "closed")
    theirs = status_by_h11(data)
    if isinstance(ours, Answer) and theirs is not None:
        assert ours.status == theirs


def status_by_h11(data: bytes) -> int | None:
    """Return the status of the final response to a POST, None where h11 finds none."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/", headers=[("host", "a"), ("content-length", "0")]))
    connection.send(h11.EndOfMessage())
    try:
        connection.receive_data(data)
        while isinstance(event := connection.next_event(), h11.InformationalResponse):
            continue
    except h11.RemoteProtocolError:
        return None
    return event.status_code if isinstance(event, h11.Response) else None
