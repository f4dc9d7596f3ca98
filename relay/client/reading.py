"""Make the frozen documents of operations of the JSON that the API answers with."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import parse_qs, urlsplit

from outbox.control.pages import Page
from outbox.ids import BulkOperationId, DeliveryId, ErasureId, EventId, Id, PortalLinkId, SubscriptionId, TokenId
from relay.operations.annotations import hints_of

__all__ = ["read_as", "read_page"]

T = TypeVar("T")
_IDS = (SubscriptionId, DeliveryId, EventId, TokenId, BulkOperationId, ErasureId, PortalLinkId)


def read_as(kind: type[T], value: Any) -> T:
    """Return a value of JSON as this type: a document, a time, an id, a list of them. Members unknown here are left."""
    made: T = _read(kind, value, {})
    return made


def read_page(kind: type[T], value: Any) -> Page[T]:
    """Return a page of these; its `next` is the cursor in the link to the next one."""
    link = value["next"]
    after = None if link is None else parse_qs(urlsplit(link).query)["after"][0]
    return Page(tuple(_read(kind, item, {}) for item in value["items"]), after)


def _read(kind: Any, value: Any, arguments: Mapping[Any, Any]) -> Any:
    kind = arguments.get(kind, kind) if isinstance(kind, TypeVar) else kind
    origin, inner = get_origin(kind), get_args(kind)
    if value is None or kind is Any or origin is Literal:
        return value
    if origin in (Union, types.UnionType):
        return _read_one_of([one for one in inner if one is not types.NoneType], value, arguments)
    if origin is Page:
        return read_page(inner[0], value)
    if is_dataclass(origin or kind):
        return _read_document(
            origin or kind, value, dict(zip(getattr(origin, "__parameters__", ()), inner, strict=False))
        )
    if origin is not None:
        return _read_container(origin, inner, value, arguments)
    return _read_plain(kind, value)


def _read_one_of(kinds: list[Any], value: Any, arguments: Mapping[Any, Any]) -> Any:
    if Id in kinds:  # or a word, where it is about no row
        return next((kind.of(value) for kind in _IDS if str(value).startswith(f"{kind.prefix}_")), value)
    return _read(kinds[0], value, arguments)


def _read_container(origin: Any, inner: tuple[Any, ...], value: Any, arguments: Mapping[Any, Any]) -> Any:
    if issubclass(origin, Mapping):
        return {name: _read(inner[1], item, arguments) for name, item in value.items()}
    if issubclass(origin, tuple) and Ellipsis not in inner:
        return tuple(_read(one, item, arguments) for one, item in zip(inner, value, strict=True))
    items = [_read(inner[0], item, arguments) for item in value]
    return tuple(items) if issubclass(origin, tuple) else items


def _read_document(kind: Any, value: Mapping[str, Any], arguments: Mapping[Any, Any]) -> Any:
    hints = hints_of(kind)
    known = [one for one in fields(kind) if one.name in value or one.default is MISSING]
    return kind(**{one.name: _read(hints[one.name], value.get(one.name), arguments) for one in known})


def _read_plain(kind: Any, value: Any) -> Any:
    if kind is datetime:
        return datetime.fromisoformat(value)
    if isinstance(kind, type) and issubclass(kind, Id):
        return kind.of(value)
    return kind(value) if isinstance(kind, type) and issubclass(kind, Enum) else value
