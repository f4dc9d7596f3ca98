"""Descriptions of documents for OpenAPI, made from the frozen documents of operations: no field is written twice.

A model is made of a document's fields and their types. Ids are text, times RFC 3339 in UTC, tuples lists.
"""

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from functools import cache
from inspect import getdoc
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema, create_model

from outbox.control.pages import Page
from outbox.control.times import rfc3339
from outbox.ids import DeliveryId, Id, SubscriptionId
from relay.operations.annotations import hints_of

__all__ = ["DeliveryText", "Moment", "SubscriptionText", "id_pattern", "listing", "model_of"]

_TEXT_ID = "[0-7][0-9a-hjkmnp-tv-z]{25}"
_UUID = "[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}"

Moment = Annotated[
    datetime,
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]
"""A time, as documents have it."""


def id_pattern(*prefixes: str) -> str:
    """Return the pattern of an id with one of these prefixes, or a UUID."""
    return f"^(({'|'.join(prefixes)})_{_TEXT_ID}|{_UUID})$"


def _shape_of(kind: type[Id]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": f"^{kind.prefix}_{_TEXT_ID}$"})


DeliveryText = Annotated[str, BeforeValidator(str), _shape_of(DeliveryId)]
SubscriptionText = Annotated[str, BeforeValidator(str), _shape_of(SubscriptionId)]


@cache
def model_of(document: Any, **more: Any) -> type[BaseModel]:
    """Return the model of a document, a dataclass or one with its type argument; `more` are types of properties."""
    kind: type = get_origin(document) or document
    arguments = dict(zip(getattr(kind, "__parameters__", ()), get_args(document), strict=False))
    hints = hints_of(kind)
    declared: dict[str, Any] = {
        field.name: (_shown(hints[field.name], arguments), ... if field.default is MISSING else field.default)
        for field in fields(kind)
    }
    name = kind.__name__ + "".join(getattr(argument, "__name__", "") for argument in arguments.values())
    return create_model(
        name,
        __config__=ConfigDict(from_attributes=True),
        __doc__=getdoc(kind),
        **declared | {name: (type_, ...) for name, type_ in more.items()},
    )


@cache
def listing(item: Any) -> type[BaseModel]:
    """Return the model of a page of these: models, or documents."""
    model = item if isinstance(item, type) and issubclass(item, BaseModel) else model_of(item)
    return create_model(
        f"PageOf{model.__name__}",
        __config__=ConfigDict(from_attributes=True),
        __doc__="Some items of a list; `next` is the link to those that follow, null where the list ends.",
        items=(list[model], ...),  # type: ignore[valid-type]
        next=(str | None, ...),
    )


def _shown(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    """Return a field's type as a document in JSON has it."""
    hint = arguments.get(hint, hint) if isinstance(hint, TypeVar) else hint
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal or hint is Any:
        return hint
    if origin is Page:
        return listing(inner[0])
    if is_dataclass(origin or hint):
        return model_of(hint)
    if origin in (Union, types.UnionType):
        if Id in inner:  # or text, where it is about no row
            return Annotated[str, BeforeValidator(str)]
        return Union[tuple(_shown(one, arguments) for one in inner)]  # noqa: UP007 - made at run time
    if origin is not None:
        return _shown_container(origin, [_shown(one, arguments) for one in inner if one is not Ellipsis], inner)
    return _shown_plain(hint)


def _shown_container(origin: Any, shown: Sequence[Any], inner: Sequence[Any]) -> Any:
    if issubclass(origin, Mapping):
        return dict[shown[0], shown[1]]  # type: ignore[valid-type]
    if issubclass(origin, tuple) and Ellipsis not in inner:
        return tuple[tuple(shown)]  # type: ignore[misc]
    return list[shown[0]]  # type: ignore[valid-type]


def _shown_plain(hint: Any) -> Any:
    if hint is datetime:
        return Moment
    if isinstance(hint, type) and issubclass(hint, Id):
        return Annotated[str, BeforeValidator(str), _shape_of(hint)]
    return hint
