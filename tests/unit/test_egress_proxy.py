"""The address of an egress proxy: what is understood, what is refused, and what is never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.secret import Secret
from relay.config.egress_proxy import EgressProxy, parse_egress_proxy
from relay.config.option import ConfigError
from relay.config.options import Config, options
from relay.config.sources import load
from relay.http.configured import make_dialler
from relay.http.dial import DirectDialler
from relay.http.tunnel import TunnelDialler, refusal_of_connect

PASSWORD = "s3cret-pa55"
URL = f"http://relay:{PASSWORD}@proxy.example.com:3128"
(OPTION,) = [option for option in options() if option.name == "egress_proxy"]


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example.com:3128", EgressProxy("http", "proxy.example.com", 3128)),
        ("HTTPS://Proxy.Example.com:443/", EgressProxy("https", "proxy.example.com", 443)),
        ("socks5://10.0.0.5:1080", EgressProxy("socks5", "10.0.0.5", 1080)),
        ("socks5h://squid:1080", EgressProxy("socks5", "squid", 1080)),
        ("http://[fd00::5]:3128", EgressProxy("http", "fd00::5", 3128)),
        (URL, EgressProxy("http", "proxy.example.com", 3128, "relay", Secret(PASSWORD))),
        ("http://token@p:80", EgressProxy("http", "p", 80, "token")),
        ("http://a%40b:p%3A%2Fw%C3%B6@p:80", EgressProxy("http", "p", 80, "a@b", Secret("p:/wö"))),
        ("http://user:a:b@p:80", EgressProxy("http", "p", 80, "user", Secret("a:b"))),
    ],
)
def test_what_is_understood(text: str, proxy: EgressProxy) -> None:
    assert parse_egress_proxy(text) == proxy


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (f"proxy.example.com:3128/{PASSWORD}", "scheme"),
        (f"ftp://u:{PASSWORD}@p:80", "scheme"),
        (f"socks4://u:{PASSWORD}@p:80", "scheme"),
        (f"://u:{PASSWORD}@p:80", "scheme"),
        (f"http://u:{PASSWORD}@p", "port"),
        (f"http://u:{PASSWORD}@p:", "port"),
        (f"http://u:{PASSWORD}@p:0", "1 to 65535"),
        (f"http://u:{PASSWORD}@p:65536", "1 to 65535"),
        (f"http://u:{PASSWORD}@p:٣", "port"),
        (f"http://u:{PASSWORD}@:80", "host"),
        (f"http://u:{PASSWORD}@p p:80", "space"),
        (f"http://u:{PASSWORD}@10.0.0:80", "number"),
        (f"http://u:{PASSWORD}@[::1%eth0]:80", ""),
        (f"http://u:{PASSWORD}@p:80/path", "follow"),
        (f"http://u:{PASSWORD}@p:80?x", "follow"),
        (f"http://u:{PASSWORD}@p:80#x", "follow"),
        (f"http://u:{PASSWORD}/x@p:80", "percent-encode"),
        (f"http://u:{PASSWORD}@x@p:80", "percent-encode"),
        (f"http://u:{PASSWORD}%4@p:80", "percent-encode"),
        (f"http://u:{PASSWORD}ö@p:80", "percent-encode"),
        (f"http://:{PASSWORD}@p:80", "percent-encode"),
        ("http://@p:80", "percent-encode"),
        (f"http://u:{PASSWORD}%ff@p:80", "UTF-8"),
        (f"http://u:{PASSWORD}%0d%0a@p:80", "control"),
        (f"http://u%3Ax:{PASSWORD}@p:80", "colon"),
        (f"http://u:{PASSWORD}{'x' * 255}@p:80", "255"),
    ],
)
def test_what_is_refused_names_the_mend_and_never_the_password(text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=r"^egress_proxy \(env RELAY_EGRESS_PROXY\): ") as refused:
        load({}, {"RELAY_EGRESS_PROXY": text})
    assert word in str(refused.value)
    assert PASSWORD not in str(refused.value)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_read_or_refused(user: str, rest: str) -> None:
    for text in (rest, f"http://{user}@{rest}", f"http://{user}@p:80"):
        try:
            proxy = parse_egress_proxy(text)
        except ValueError:
            continue
        assert 0 < proxy.port < 65_536
        assert proxy.host.isascii()
        assert proxy.user is None or f"{proxy.user}{proxy.password.reveal()}".isprintable()


def test_user_and_password_are_shown_nowhere(tmp_path) -> None:
    config = Config(egress_proxy=URL)
    assert OPTION.text_of(config.egress_proxy) == "http://***@proxy.example.com:3128"
    assert OPTION.text_of(None) == ""
    for text in (repr(config), str(config.egress_proxy), f"{config.egress_proxy}"):
        assert PASSWORD not in text
        assert "relay:" not in text
    file = tmp_path / "url"
    file.write_text(URL + "\n")
    file.chmod(0o600)
    assert load({}, {"RELAY_EGRESS_PROXY_FILE": str(file)}).config == config
    with pytest.raises(ConfigError, match="not text"):
        Config(egress_proxy=3128)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_configuration_chooses_the_way_out() -> None:
    for config, kind in ((Config(), DirectDialler), (Config(egress_proxy=URL), TunnelDialler)):
        dialler = make_dialler(config)
        assert type(dialler) is kind
        await dialler.close()


@given(st.binary(max_size=200))
def test_no_answer_to_connect_but_a_2xx_is_a_tunnel(data: bytes) -> None:
    for head in (data, b"HTTP/1.1 " + data, b"HTTP/1.1 " + data + b"\r\n\r\n"):
        refusal = refusal_of_connect(head)
        assert (refusal is None) <= head.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2"))
