"""What the data of an event type must be: a model in one of several kinds, each with the library that knows it.

A model gives the JSON Schema of what is written, makes data ready to be written, and judges the JSON text that is: so
what is checked is exactly what receivers get. Libraries are imported when the first type that needs them is declared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Protocol

from outbox._text import brief
from outbox.catalogue.problems import (
    TOO_LONG,
    Problem,
    problems_of_pydantic,
    problems_of_schema,
    problems_of_struct,
)
from outbox.errors import ArgumentError, PayloadError

__all__ = ["Model", "model_of"]

_MOST_SCHEMA_BYTES = 262_144


class Model(Protocol):
    """What judges data of one type."""

    schema: Mapping[str, Any]

    def prepare(self, data: object) -> tuple[object, bool]:
        """Return what `record()` is to write for the data, and whether the text has to be judged still."""

    def problems(self, payload: str) -> list[Problem]:
        """Return what is wrong with this JSON text; nothing where it is right."""


def model_of(given: object) -> Model | None:
    """Return the model for a class or JSON Schema; None, which is any JSON, for None. Raises ArgumentError."""
    if given is None:
        return None
    if isinstance(given, Mapping):
        return _checked(_JsonSchema(given))
    if not isinstance(given, type):
        raise ArgumentError(f"model: must be a class or a JSON Schema (a mapping), not {brief(given)}")
    if any(kind.__module__.partition(".")[0] == "msgspec" for kind in given.__mro__):
        return _checked(_Struct(given))
    if callable(getattr(given, "model_dump", None)) or is_dataclass(given) or hasattr(given, "__required_keys__"):
        return _checked(_Pydantic(given))
    raise ArgumentError(
        f"model: {given.__qualname__} is none; give a pydantic model, a dataclass, a TypedDict, a msgspec Struct, "
        "or a JSON Schema (a mapping)"
    )


def _checked(model: Model) -> Model:
    try:
        size = len(json.dumps(model.schema, ensure_ascii=False, allow_nan=False).encode())
    except (ValueError, TypeError) as error:
        raise ArgumentError(f"model: its JSON Schema is no JSON: {error}") from None
    if size > _MOST_SCHEMA_BYTES:
        raise ArgumentError(f"model: its JSON Schema is {size} bytes, at most {_MOST_SCHEMA_BYTES} are allowed")
    return model


def _needs(package: str, error: ModuleNotFoundError) -> ArgumentError:
    return ArgumentError(f"model: needs {error.name or package}: pip install 'outbox-relay[catalogue]'")


class _Pydantic:
    """A pydantic model, dataclass or TypedDict, by pydantic's TypeAdapter.

    The text is judged strictly, so "12" is no integer, and by the names that are written: aliases only where the model
    says serialize_by_alias. An instance of a pydantic model was judged when it was made.
    """

    def __init__(self, given: type) -> None:
        try:
            import pydantic
        except ModuleNotFoundError as error:
            raise _needs("pydantic", error) from None
        self._model = given if issubclass(given, pydantic.BaseModel) else None
        self._invalid = pydantic.ValidationError
        self._by_alias = bool(self._model and self._model.model_config.get("serialize_by_alias"))
        try:
            self._adapter: Any = pydantic.TypeAdapter(given)
            # A pydantic model is written by itself, everything else by record(), as it would be read.
            mode: Any = "serialization" if self._model else "validation"
            self.schema: Mapping[str, Any] = self._adapter.json_schema(mode=mode, by_alias=self._by_alias)
        except (pydantic.errors.PydanticUserError, NameError) as error:
            raise ArgumentError(f"model: {given.__qualname__}: {str(error).splitlines()[0]}") from None

    def prepare(self, data: object) -> tuple[object, bool]:
        if self._model is None or not isinstance(data, self._model):
            return data, True
        try:
            return data.model_dump(mode="json", warnings="error"), False
        except (ValueError, TypeError, RecursionError):
            raise PayloadError(
                f"data: this {self._model.__qualname__} holds what its fields do not allow; it was changed after it "
                "was made, or made by model_construct()"
            ) from None

    def problems(self, payload: str) -> list[Problem]:
        try:
            self._adapter.validate_json(payload, strict=True, by_alias=self._by_alias, by_name=not self._by_alias)
        except self._invalid as error:
            return problems_of_pydantic(error, payload)
        return []


class _Struct:
    """A msgspec Struct, which msgspec itself turns into JSON's types."""

    def __init__(self, given: type) -> None:
        try:
            import msgspec
        except ModuleNotFoundError as error:
            raise _needs("msgspec", error) from None
        self._given = given
        self._msgspec = msgspec
        self._decoder: Any = msgspec.json.Decoder(given)
        self.schema: Mapping[str, Any] = msgspec.json.schema(given)

    def prepare(self, data: object) -> tuple[object, bool]:
        if not isinstance(data, self._msgspec.Struct):
            return data, True
        try:
            return self._msgspec.to_builtins(data), True
        except (TypeError, ValueError, RecursionError) as error:
            raise PayloadError(f"data: msgspec has no JSON form for this {self._given.__qualname__}") from error

    def problems(self, payload: str) -> list[Problem]:
        try:
            self._decoder.decode(payload)
        except self._msgspec.ValidationError as error:
            return problems_of_struct(str(error))
        return []


class _JsonSchema:
    """A JSON Schema, draft 4 to 2020-12 (by its $schema; else 2020-12). No schema is fetched from elsewhere."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        try:
            import jsonschema_rs
        except ModuleNotFoundError as error:
            raise _needs("jsonschema-rs", error) from None
        self.schema: Mapping[str, Any] = _plain(given)
        try:
            self._validator = jsonschema_rs.validator_for(self.schema, validate_formats=True, retriever=_refuse)
        except jsonschema_rs.ValidationError as error:
            where = "".join(f"[{step!r}]" for step in error.instance_path)
            raise ArgumentError(f"model: is no JSON Schema: {error.message}{where and f' at {where}'}") from None
        except (jsonschema_rs.ReferencingError, ValueError) as error:
            raise ArgumentError(f"model: is no JSON Schema: {str(error).splitlines()[0]}") from None

    def prepare(self, data: object) -> tuple[object, bool]:
        return data, True

    def problems(self, payload: str) -> list[Problem]:
        try:
            data = json.loads(payload)
        except ValueError:  # the text is JSON: Python reads no number of more than 4,300 digits
            return [TOO_LONG]
        return [] if self._validator.is_valid(data) else problems_of_schema(self._validator.iter_errors(data))


def _plain(given: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a copy of a schema, as JSON has it."""
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(given), allow_nan=False))
    except (ValueError, TypeError, RecursionError) as error:
        raise ArgumentError(f"model: its JSON Schema is no JSON: {error}") from None
    if any(not isinstance(name, str) for name in given):
        raise ArgumentError("model: its JSON Schema is no JSON: a key is no text")
    return copy


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri} lies elsewhere, and nothing is fetched; put it under $defs")
