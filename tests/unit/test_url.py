"""The strict parser of endpoint URLs: one spelling in, one out, no repair."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from outbox.errors import SubscriptionError
from outbox.subscriptions.url import parse_url


@pytest.mark.parametrize(
    ("written", "stored", "host", "port", "target", "authority"),
    [
        ("https://Hooks.Example.COM/in", "https://hooks.example.com/in", "hooks.example.com", 443, "/in", None),
        ("HTTPS://a.example?x=1", "https://a.example/?x=1", "a.example", 443, "/?x=1", None),
        ("https://a.example", "https://a.example/", "a.example", 443, "/", None),
        ("https://a.example./in", "https://a.example/in", "a.example", 443, "/in", None),
        ("https://a.example:443/", "https://a.example/", "a.example", 443, "/", None),
        ("https://a.example:08443/", "https://a.example:8443/", "a.example", 8443, "/", "a.example:8443"),
        ("http://a.example:443/", "http://a.example:443/", "a.example", 443, "/", "a.example:443"),
        ("http://localhost:8000/x", "http://localhost:8000/x", "localhost", 8000, "/x", "localhost:8000"),
        ("https://8.8.8.8/", "https://8.8.8.8/", "8.8.8.8", 443, "/", None),
        ("https://[2001:DB8:0::1]:1/", "https://[2001:db8::1]:1/", "2001:db8::1", 1, "/", "[2001:db8::1]:1"),
        ("https://a.example/%7Eb?c[]=%20&d=@", "https://a.example/%7Eb?c[]=%20&d=@", "a.example", 443, None, None),
        ("https://bücher.example/", "https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, "/", None),
        ("https://XN--BCHER-KVA.example/", "https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, "/", None),
        (
            "https://faß.Example:1/",
            "https://xn--fa-hia.example:1/",
            "xn--fa-hia.example",
            1,
            "/",
            "xn--fa-hia.example:1",
        ),
        ("https://日本語.example./", "https://xn--wgv71a119e.example/", "xn--wgv71a119e.example", 443, "/", None),
        ("https://r3---sn-a.example/", "https://r3---sn-a.example/", "r3---sn-a.example", 443, "/", None),
        ("https://_x.a-b.example/../", "https://_x.a-b.example/../", "_x.a-b.example", 443, "/../", None),
    ],
)
def test_an_accepted_url_has_one_spelling(
    written: str, stored: str, host: str, port: int, target: str | None, authority: str | None
) -> None:
    url = parse_url(written)
    assert (url.text, url.host, url.port) == (stored, host, port)
    assert url.target == (target or "/%7Eb?c[]=%20&d=@")
    assert url.authority == (authority or host)
    assert parse_url(url.text) == url


REFUSED = {
    "https://user:secret-word@a.example/": "user name",
    "https://a.example/secret-word#part": "fragment",
    "https://a.example:/": "port number",
    "https://a.example:0/": "port must be",
    "https://a.example:65536/": "port must be",
    "https://a.example:٤٤٣/": "port number",
    "https://a.example:４４３/": "port number",
    "https://a.example:+443/": "port number",
    "https://a.example:00443/x:y\x7f": "control",
    "https://a.example/\x85": "control",
    "https://a.example\u3000/": "IDNA 2008",
    "https://BÜCHER.example/": "IDNA 2008",
    "https://Bücher.example/": "IDNA 2008",
    "https://bu\u0308cher.example/": "IDNA 2008",  # not NFC
    "https://\u212aelvin.example/": "IDNA 2008",  # the Kelvin sign, which lower() makes a k
    "https://ａ.example/": "IDNA 2008",
    "https://①②⑦.⓪.⓪.①/": "IDNA 2008",
    "https://127.0.0.１/": "IDNA 2008",
    "https://127。0。0。1/": "IDNA 2008",
    "https://a.example／secret-word": "IDNA 2008",
    "https://a\u200db.example/": "IDNA 2008",
    "https://a\u00adb.example/": "IDNA 2008",
    "https://\ud800.example/": "IDNA 2008",
    "https://💩.example/": "IDNA 2008",
    "https://xn--ls8h.example/": "IDNA 2008",  # the same in xn-- form
    "https://xn--127-.example/": "IDNA 2008",  # 127, dressed up
    "https://xn--a.example/": "IDNA 2008",
    "https://xn--0.example/": "IDNA 2008",
    "https://xn---bbk.example/": "IDNA 2008",  # a second spelling of xn--bbk
    "https://xn--.example/": "IDNA 2008",
    f"https://{'ü' * 64}.example/": "IDNA 2008",
    f"https://{'ü.' * 250}example/": "host",
    f"https://{'ü' * 60}.{'ü' * 60}.{'ü' * 60}.{'ü' * 60}/": "host",
    "https://bücher.1/": "address",
    "https://bücher.0x7f/": "address",
    "https://[::ffff:１]/": "address",
    "httpſ://a.example/": "scheme",
    "https://a.example/secret-word/ü": "percent-encode",
    "https://a.example/secret-word b": "space",
    "https://a.example/secret-word\r\nx: y": "control",
    "https://a.example\\@b.example/": "backslash",
    "https://a.example/secret-word%zz": "percent-encoded",
    "https://a.example/{secret-word}": "percent-encoded",
    "https://127.1/": "address",
    "https://0x7f.0.0.1/": "address",
    "https://0177.0.0.1/": "address",
    "https://2130706433/": "address",
    "https://a.example.0x7f/": "address",
    "https://[fe80::1%25eth0]/": "zone",
    "https://[fe80::1%eth0]/": "zone",
    "https://[::1/": "one host",
    "https://::1/": "one host",
    "https:///secret-word": "host",
    "https://%61.example/": "host",
    "https://a..example/": "host",
    "https://-a.example/": "host",
    "https://a_.example-/": "host",
    f"https://{'a' * 64}.example/": "host",
    f"https://{'a.' * 127}example/": "host",
    "ftp://a.example/": "scheme",
    "//a.example/": "https://",
    "a.example/secret-word": "https://",
    "https:a.example": "https://",
    "": "text",
}


@pytest.mark.parametrize(("written", "word"), REFUSED.items(), ids=range(len(REFUSED)))
def test_a_refusal_names_the_field_and_the_mend(written: str, word: str) -> None:
    with pytest.raises(SubscriptionError, match=r"^url: ") as refused:
        parse_url(written)
    assert word in str(refused.value)
    assert "secret-word" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [None, 5, b"https://a.example/", ["https://a.example/"]])
def test_only_text_is_a_url(value: Any) -> None:
    with pytest.raises(SubscriptionError, match=r"^url: must be text"):
        parse_url(value)


@pytest.mark.case("B4")
def test_a_url_has_at_most_8000_octets() -> None:
    start = "https://a.example/"
    assert parse_url(start + "a" * (8000 - len(start))).host == "a.example"
    with pytest.raises(SubscriptionError, match=r"^url: 8001 characters long"):
        parse_url(start + "a" * (8001 - len(start)))


@pytest.mark.case("B4")
def test_what_is_stored_has_at_most_8000_octets_too() -> None:
    with pytest.raises(SubscriptionError, match=r"^url: 8007 characters long"):
        parse_url("https://bücher.example/" + "a" * (8000 - len("https://bücher.example/")))


_parts = st.sampled_from(
    ["https://", "http://", "a.example", "127.0.0.1", "[::1]", ":", "@", "/", "?", "#", "%", "\\", "443", "bü", "xn--"]
)


@given(st.lists(_parts | st.text(max_size=3), max_size=8).map("".join))
@settings(max_examples=300)
@example("https://a.example:443@[::1]/")
def test_any_text_is_refused_or_stored_in_a_stable_safe_spelling(text: str) -> None:
    try:
        url = parse_url(text)
    except SubscriptionError:
        return
    assert parse_url(url.text) == url
    assert all("!" <= character <= "~" for character in url.authority + url.target)
    assert not set(url.host) & set("@/?#\\%")
