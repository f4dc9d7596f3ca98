"""The portal without a database: its texts, colours, settings, and which types a customer may choose."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from jinja2 import Environment, nodes

from outbox.control.advice import ANSWERS, TLS
from outbox.control.advice import OUTCOMES as ADVISED
from outbox.control.deliveries import STATES
from outbox.control.event_types import shape_of
from outbox.control.filters import OUTCOMES
from relay.config.option import ConfigError
from relay.config.options import Config
from relay.config.sources import load
from relay.web.pages.points import STEPS
from relay.web.pages.wording import PART_WORDS
from relay.web.portal import deliveries, failures, rendering
from relay.web.portal.branding import branding_of
from relay.web.portal.colours import DARK_GROUNDS, LIGHT_GROUNDS, contrast, legible, style_of
from relay.web.portal.endpoint_forms import allows
from relay.web.portal.texts import LANGUAGES, read_texts

PORTAL = Path(rendering.__file__).parent
TEXTS = PORTAL / "texts"
GROUPS = {
    "notices": set(rendering.NOTICES),
    "kinds": {"text", "number", "true or false", "null", "object", "list"},
    "states": {*STATES, "active", "failing", "dead", "retry", "test", "replayed_or_purged"},
    "waits": set(deliveries.TOLD_WAITS),
    "outcomes": set(OUTCOMES),
    "advice": set(failures.ADVICE),
    "charts": set(PART_WORDS),
    "windows": set(STEPS),
}


def in_templates() -> tuple[set[str], set[str]]:
    """Every text in the code of the templates, and those of them by which `t` is called."""
    words: set[str] = set()
    called: set[str] = set()
    for path in PORTAL.glob("templates/*.html"):
        tree = rendering_environment().parse(path.read_text("utf-8"))
        words |= {one.value for one in tree.find_all(nodes.Const) if isinstance(one.value, str)}
        for call in tree.find_all(nodes.Call):
            if isinstance(call.node, nodes.Name) and call.node.name == "t" and not call.args[0].find(nodes.Concat):
                asked = call.args[0]
                within = [asked] if isinstance(asked, nodes.Const) else []
                if isinstance(asked, nodes.CondExpr):
                    within = [one for one in (asked.expr1, asked.expr2) if isinstance(one, nodes.Const)]
                called |= {str(one.value) for one in within}
    return words, {key for key in called if "." not in key}


def in_modules() -> tuple[set[str], set[str]]:
    """Every text in the modules, and those of them that name a text of a page or of an error."""
    words: set[str] = set()
    called: set[str] = set()
    for path in PORTAL.glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        words |= {one.value for one in ast.walk(tree) if isinstance(one, ast.Constant) and isinstance(one.value, str)}
        for call in (one for one in ast.walk(tree) if isinstance(one, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            keys = {"texts": call.args[:1], "PortalRefused": call.args[1:2], "alone": call.args[2:4]}.get(name, [])
            called |= {one.value for one in keys if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return words, called


def rendering_environment() -> Environment:
    return Environment(autoescape=True)


def test_every_text_that_is_used_exists_and_every_one_that_exists_is_used() -> None:
    plain = {key for key in read_texts("en").keys if "." not in key}
    (words, called), (python_words, python_called) = in_templates(), in_modules()
    assert len(called) > 100
    assert (called | python_called) - plain == set()
    made = {f"theme_{name}" for name in rendering.THEMES} | {f"show_{name}" for name in deliveries.SHOWS}
    assert plain - words - python_words - made == set()
    assert made - plain == set()


def test_every_text_by_a_word_of_the_schema_exists_and_no_other() -> None:
    texts = read_texts("en")
    assert {key.partition(".")[0] for key in texts.keys if "." in key} == set(GROUPS)
    for group, words in GROUPS.items():
        assert set(texts.group(group)) == words, group


def test_each_advice_is_on_a_cause_that_there_is_and_each_class_of_http_and_tls_has_some() -> None:
    causes = {f"answer.{status}" for status in ANSWERS} | {f"message.{outcome}" for outcome in ADVISED}
    assert causes | {f"tls.{name}" for name, *_ in TLS} >= failures.ADVICE
    assert {f"message.{outcome}" for outcome in failures.ABOUT_THE_ENDPOINT} - failures.ADVICE == set()


@pytest.mark.parametrize("language", sorted({*LANGUAGES} - {"en"}))
def test_a_translation_that_comes_along_is_whole(language: str) -> None:
    """Read as a file of one's own is: the same keys, and the same names in braces."""
    read_texts(str(TEXTS / f"{language}.toml"))


def test_a_translation_of_ones_own_is_checked_when_it_is_read(tmp_path: Path) -> None:
    model, own = (TEXTS / "en.toml").read_text("utf-8"), tmp_path / "own.toml"
    for changed, said in (
        (model.replace('ago = "{time} ago"', 'ago = "{time.__class__} ago"'), "ago needs the same names"),
        (model.replace('ago = "{time} ago"', 'ago = "}{"'), "ago has a brace alone"),
        (model.replace('skip = "', 'skap = "'), "skap is a text that there is not"),
        (model.replace('[windows]\n1h = "the last hour"\n', "[windows]\n"), "windows.1h is missing"),
        ("language = ", "is no TOML"),
    ):
        own.write_text(changed, "utf-8")
        with pytest.raises(ConfigError, match=f"^portal_language: .*{re.escape(said)}"):
            read_texts(str(own))
    own.write_text(model.replace("Sign out", "Log off"), "utf-8")
    assert read_texts(str(own))("sign_out") == "Log off"
    for name in ("fr", str(tmp_path / "none.toml")):
        with pytest.raises(ConfigError, match=r"^portal_language: "):
            read_texts(name)


def test_the_path_of_a_translation_may_be_long() -> None:
    path = f"/srv/{'a' * 200}/own.toml"
    assert load({}, {"RELAY_PORTAL_LANGUAGE": path}, None).config.portal_language == path


@pytest.mark.parametrize("colour", ["#ffee00", "#e11d48", "#000000", "#ffffff", "#7c3aed", "#00ff00"])
def test_text_in_the_colour_can_be_read_on_every_ground(colour: str) -> None:
    light, dark = legible(colour, LIGHT_GROUNDS, "#000000"), legible(colour, DARK_GROUNDS, "#ffffff")
    assert all(contrast(light, ground) >= 4.5 for ground in LIGHT_GROUNDS)
    assert all(contrast(dark, ground) >= 4.5 for ground in DARK_GROUNDS)
    found = re.findall(r"light-dark\((#\w{6}), (#\w{6})\)", style_of([colour]))
    (one, other), (on_one, on_other) = found
    assert min(contrast(one, on_one), contrast(other, on_other)) >= 4.5


def test_the_grounds_are_those_of_the_style_sheet() -> None:
    css = (PORTAL.parent / "pages" / "assets" / "relay.css").read_text("utf-8")
    pairs = [
        re.search(rf"--{name}: light-dark\((#\w+), (#\w+)\)", css)
        for name in ("ground", "panel", "raised", "note-ground")
    ]
    assert tuple(pair[1] for pair in pairs if pair) == LIGHT_GROUNDS
    assert tuple(pair[2] for pair in pairs if pair) == DARK_GROUNDS
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("portal_frame_ancestors", ("https://*.example.com",), "no origin"),
        ("portal_frame_ancestors", ("http://app.example.com",), "no origin"),
        ("portal_frame_ancestors", ("https://app.example.com/x",), "no origin"),
        ("portal_frame_ancestors", ("https://a.example; script-src *",), "no origin"),
        ("portal_logo", "http://cdn.example.com/a.svg", "neither the path"),
        ("portal_logo", "https://cdn.example.com/a.svg;script-src", "neither the path"),
        ("portal_colours", ("red",), "one or two colours"),
        ("portal_colours", ("#ffffff", "#000000", "#111111"), "one or two colours"),
        ("portal_name", "", "no name"),
        ("portal_name", "a\nb", "no name"),
        ("portal_types", ("a b",), "portal_types: "),
        ("portal_url", "ftp://x", "scheme"),
        ("portal_url", "http://hooks.example.com/portal", "plain http"),
        ("portal_max_endpoints", 0, "whole number"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(option: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{option}: ") as refused:
        Config(**{option: value})  # type: ignore[arg-type]
    assert said in str(refused.value)


def test_a_logo_is_a_picture_that_can_be_read(tmp_path: Path) -> None:
    svg, wrong, large = tmp_path / "a.svg", tmp_path / "a.png", tmp_path / "b.png"
    svg.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>', "utf-8")
    wrong.write_text("no picture", "utf-8")
    large.write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 600_000)
    found = branding_of(Config(portal_logo=str(svg)))
    assert found.logo is not None
    assert found.logo.media_type == "image/svg+xml"
    for path in (wrong, large, tmp_path / "none.png"):
        with pytest.raises(ConfigError, match=r"^portal_logo: "):
            branding_of(Config(portal_logo=str(path)))


def test_the_policy_allows_the_logo_and_the_framing_pages_and_nothing_else() -> None:
    plain = branding_of(Config()).headers
    assert "frame-ancestors 'none'" in plain["Content-Security-Policy"]
    assert plain["X-Frame-Options"] == "DENY"
    assert "script-src" not in plain["Content-Security-Policy"]
    framed = branding_of(
        Config(portal_frame_ancestors=("https://app.example.com",), portal_logo="https://cdn.example.com/logo.svg")
    ).headers
    policy = framed["Content-Security-Policy"]
    assert "frame-ancestors 'self' https://app.example.com;" in policy
    assert "img-src 'self' https://cdn.example.com/logo.svg;" in policy
    assert "X-Frame-Options" not in framed
    assert "unsafe" not in policy
    foreign = branding_of(Config(portal_logo="https://bücher.example/logo.svg")).headers
    assert "img-src 'self' https://xn--bcher-kva.example/logo.svg;" in foreign["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("allowed", "pattern", "is_covered"),
    [
        (("*",), "order.paid", True), (("*",), "*", True), (("*",), "relay.endpoint.disabled", False),
        (("*",), "relay.*", False), (("relay.*",), "relay.*", True),
        (("order.*",), "order.paid", True), (("order.*",), "order.*", True), (("order.*",), "order.eu.*", True),
        (("order.*",), "*", False), (("order.*",), "order", False), (("order.*",), "orders.paid", False),
        (("order.paid",), "order.paid", True), (("order.paid",), "order.*", False), ((), "order.paid", False),
    ],
)  # fmt: skip
def test_which_types_a_customer_may_choose(allowed: tuple[str, ...], pattern: str, is_covered: bool) -> None:
    assert allows(allowed, pattern) is is_covered


def test_the_shape_of_a_payload() -> None:
    text = '{"id": 1, "customer": {"name": "Zoë", "vat": null}, "items": [{"n": 1.5}, 2], "paid": true, "none": []}'
    assert shape_of(text) == (
        ("id", "number"), ("customer", "object"), ("customer.name", "text"), ("customer.vat", "null"),
        ("items", "list"), ("items[]", "object"), ("items[].n", "number"), ("paid", "true or false"), ("none", "list"),
    )  # fmt: skip
    for odd in ("[" * 100_000, "no json", '"' + "x" * 300_000 + '"', "1"):
        assert shape_of(odd) == ()
    assert len(shape_of("{" + ",".join(f'"a{n}": {n}' for n in range(5_000)) + "}")) == 500


@pytest.mark.parametrize(
    "payload",
    [
        '{"' + "k" * 200_000 + '": {' + ",".join(f'"p{n}": 1' for n in range(500)) + '}, "last": 1}',
        ('{"' + "k" * 400 + '":') * 450 + "1" + "}" * 450,
    ],
)
def test_long_names_do_not_make_a_shape_of_megabytes(payload: str) -> None:
    """Each place names those that it is in: a quarter of a megabyte of payload became a page of a hundred."""
    shape = shape_of(payload)
    assert sum(len(place) for place, _ in shape) < 200_000
    assert shape in ((("last", "number"),), ())
