"""A subscription's field is declared once: its types, checks, flags and documentation agree with the declaration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

import click
import pytest
from sqlalchemy import JSON, Boolean, Date, Integer, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

import outbox
from outbox import subscriptions
from outbox.errors import SubscriptionError
from outbox.subscriptions import value_checks
from outbox.subscriptions.declaration import REQUIRED, Field, fields_in
from outbox.subscriptions.fields import COLUMNS, FIELDS, SECRETS, Changes, Settings, Subscription, check_fields
from outbox.subscriptions.json_text import JSON_TEXT
from relay.cli import cli
from relay.web.pages import field_texts
from relay.web.pages.csrf import Form
from relay.web.pages.subscription_forms import asked_of, places_of

TOLD = get_type_hints(Changes)
READ = get_type_hints(Subscription)
UNTOUCHED: Any = None  # what is refused is refused before the connection is looked at
each_field = pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
each_column = pytest.mark.parametrize("field", COLUMNS, ids=lambda field: field.name)
VERBS = {subscriptions.add: Settings, subscriptions.add_for_every_tenant: Settings, subscriptions.update: Changes}
each_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)


def shape(column: Any) -> tuple[Any, Any]:
    """What a column's type is told as, and read as."""
    if isinstance(column, ARRAY):
        item, _ = shape(column.item_type)
        return Sequence[item], tuple[item, ...]
    for kind, python in ((Text, str), (Integer, int), (Boolean, bool)):
        if isinstance(column, kind):
            return python, python
    assert isinstance(column, JSON | type(JSON_TEXT))
    return Mapping, Mapping


def same(hint: Any, expected: Any, *, or_none: bool) -> bool:
    if or_none:
        assert type(None) in get_args(hint)
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    return expected in (hint, get_origin(hint))


def test_the_typed_dicts_are_the_declarations() -> None:
    assert [field.name for field in FIELDS] == list(TOLD)
    assert list(fields_in(Settings)) == [field for field in FIELDS if field.default is not REQUIRED]


@each_column
def test_a_field_is_told_and_read_in_the_type_of_its_column(field: Field) -> None:
    told, read = shape(field.column)
    assert same(TOLD[field.name], told, or_none=field.default is not REQUIRED)
    assert same(READ[field.name], read, or_none=field.default is None)


def test_of_a_secret_only_words_are_read() -> None:
    assert {field.name: READ[field.name] for field in SECRETS} == {
        "headers": tuple[str, ...],
        "authentication": str,
        "tls": str,
        "format_secret": str,
    }
    assert [field.default for field in SECRETS] == [None] * len(SECRETS)


@each_field
def test_none_is_the_default_and_the_default_passes_its_check(field: Field) -> None:
    if field.default is REQUIRED:
        with pytest.raises(SubscriptionError, match=f"^{field.name}: "):
            check_fields(**{field.name: None})
        return
    assert check_fields(**{field.name: None}) == {field.name: field.default}
    if field.default is not None:
        assert check_fields(**{field.name: field.default}) == {field.name: field.default}


@each_field
def test_a_refusal_names_the_field(field: Field) -> None:
    with pytest.raises(SubscriptionError, match=f"^{field.name}: "):
        check_fields(**{field.name: object()})


@each_verb
def test_a_verb_shows_every_field_in_its_signature_and_its_help(verb: Any) -> None:
    names = list(get_type_hints(VERBS[verb]))
    assert f"Unpack[{VERBS[verb].__name__}]" in verb.__annotations__.values(), "editors and type checkers read this"
    assert list(inspect.signature(verb).parameters)[-len(names) :] == names
    if verb is not subscriptions.add_for_every_tenant:  # "else as add"
        told = inspect.cleandoc(verb.__doc__)
        assert all(f"\n    {name}: " in told for name in names)


@each_verb
def test_what_is_no_field_is_refused_as_python_does(verb: Any) -> None:
    arguments = ("sub_",) if verb is subscriptions.update else ("https://example.com/", ["*"])
    with pytest.raises(TypeError, match=rf"^{verb.__name__}\(\) got an unexpected keyword argument 'timeout'$"):
        verb(UNTOUCHED, *arguments, timeout=3)


def test_url_and_types_are_told_once() -> None:
    with pytest.raises(TypeError, match="url"):
        outbox.subscribe(UNTOUCHED, "https://example.com/", ["*"], url="https://example.com/")


def options(command: str) -> dict[str, click.Option]:
    group = cli.get_command(click.Context(cli), "subscriptions")
    assert isinstance(group, click.Group)
    found = group.get_command(click.Context(group), command)
    assert found is not None
    return {option.opts[0]: option for option in found.params if isinstance(option, click.Option)}


@pytest.mark.parametrize("command", ["add", "update"])
@each_field
def test_the_command_line_has_the_flags_and_their_help(field: Field, command: str) -> None:
    if command == "add" and field.default is REQUIRED:
        return  # its arguments
    for flag in field.flags:
        option = options(command)["--" + flag.name.replace("_", "-")]
        default = f" [default: {field.default_text}]" if field.default_text else ""
        assert (option.help, option.multiple) == (flag.help + default, flag.repeatable)


@each_field
def test_a_column_has_one_flag_of_its_name_and_a_secret_can_be_taken_away(field: Field) -> None:
    if field.is_secret:
        assert all(flag.file or flag.repeatable for flag in field.flags)
        assert options("update")[f"--no-{field.name.replace('_', '-')}"].help == field.no_flag != ""
    else:
        assert [flag.name for flag in field.flags] == [field.name]


@each_field
def test_a_field_is_documented_in_whole_sentences(field: Field) -> None:
    for text in (field.meaning, *(flag.help for flag in field.flags)):
        assert text[0].isupper() or text[0].isdigit()
        assert text.endswith(".") or ";" in text


NEW: Any = {"check": value_checks.text(100), "flags": (), "meaning": "What a `note` is for."}


@pytest.mark.parametrize(
    ("column", "default", "text", "value"),
    [
        (Text(), "", " a ", "a"),
        (Integer(), None, "7", 7),
        (ARRAY(Integer), (), "7, 8", [7, 8]),
        (ARRAY(Text), (), "a\nb", ["a", "b"]),
        (JSONB(), {}, "a=b", {"a": "b"}),
        (JSON_TEXT, None, '{"a": 1}', {"a": 1}),
        (Boolean(), False, "1", True),
    ],
    ids=repr,
)
def test_a_new_field_is_asked_for_by_the_dashboard_without_a_change_of_it(
    column: Any, default: Any, text: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Field(name="a_note", column=column, default=default, **NEW)
    monkeypatch.setattr(field_texts, "COLUMNS", (*COLUMNS, new))
    asked = asked_of([*FIELDS, new])
    assert "a_note" in field_texts.texts_of(None)
    assert asked["a_note"].label.startswith("A note")
    assert asked["a_note"].help == "What a note is for."
    assert places_of([*FIELDS, new])["rest"][-1] == "a_note"
    form = Form([("url", "https://example.com/"), ("types", "a.b"), ("a_note", text)])
    assert field_texts.settings_in(form)["a_note"] == value


def test_a_filter_of_plain_texts_is_shown_as_the_json_that_it_is() -> None:
    item: Any = SimpleNamespace(**{field.name: field.default for field in COLUMNS} | {"filter": {"key": "a"}})
    shown = field_texts.texts_of(item)["filter"]
    assert field_texts.read_text(next(one for one in COLUMNS if one.name == "filter"), shown) == {"key": "a"}


def test_a_field_that_the_dashboard_cannot_ask_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"^a_note: no form asks for a column of the type Date"):
        asked_of([Field(name="a_note", column=Date(), **NEW)])
    monkeypatch.setattr(field_texts, "SECRETS", (*SECRETS, Field(name="a_note", **NEW)))
    with pytest.raises(TypeError, match=r"^a_note: no form asks for it; subscription_form.html and _SECRET_IN"):
        field_texts.settings_in(Form([]))


def test_each_field_stands_in_the_form_once() -> None:
    placed = [name for names in places_of(FIELDS).values() for name in names]
    assert sorted(placed) == sorted(field.name for field in FIELDS)
