"""Read a file of subscriptions: TOML whose tables have the fields that outbox.subscriptions declares.

Every fault is found before anything is compared or written, and named by file, table and field. No message quotes what
may be a secret.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

from outbox import formats
from outbox._text import brief, did_you_mean
from outbox.errors import SubscriptionError
from outbox.formats import shown_url
from outbox.secret import Secret, hides_secrets
from outbox.signing import schemes
from outbox.signing.verify import public_key
from outbox.subscriptions.checks import check_name, check_tenant
from outbox.subscriptions.fields import COLUMNS, FIELDS, SECRETS
from outbox.subscriptions.filters.values import read_filter
from outbox.subscriptions.signing_secrets import OwnSecret, signing_secret
from relay.operations.subscription_file.plan import KEEP, SIGNING, Declared, Fault, GivenSecret, Keep
from relay.operations.subscription_file.references import Place, is_keep, is_reference, resolve

__all__ = ["TABLE", "Document", "FileError", "fault_line", "read_document"]

T = TypeVar("T")

TABLE = "subscription"
"""The name of the array of tables."""

_BESIDES = ("tenant", "every_tenant", "scheme", "secret")
_KEYS = (*(one.name for one in FIELDS), *_BESIDES)
_BY_REFERENCE = 'give { env = "NAME" } or { file = "PATH" }'
# Never as text: what proves who sends. A header's value may be plain, unless its name says what it is.
_NEVER_PLAIN = ("secret", "format_secret", "authentication.password", "authentication.token",
                "authentication.client_secret", "tls.client_key")  # fmt: skip
_SECRET_HEADER = re.compile(r"auth|key|token|secret|passw|cookie|credential|signature", re.IGNORECASE)


class FileError(SubscriptionError):
    """A file of subscriptions was refused, a line for each fault; nothing was written."""


@dataclass(frozen=True)
class Document:
    """What a file declares, in its order."""

    manager: str
    declared: tuple[Declared, ...]


def fault_line(file: str, fault: Fault) -> str:
    """Return one fault as a line that names file, table and field."""
    whose = {"": "", "*": " of every tenant"}.get(fault.tenant, f" of {fault.tenant}")
    return f"{file}: {TABLE} {fault.name}{whose}: {fault.problem}"


@hides_secrets
def read_document(text: str, file: str, place: Place) -> Document:
    """Read a file's text.

    Args:
        text: TOML.
        file: its name, for messages.
        place: where its references are looked up.

    Raises:
        FileError: it cannot be read, or fields were refused; the message has a line for each fault.
    """
    try:
        content = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise FileError(f"{file}: is no TOML: {error}") from None
    except RecursionError:
        raise FileError(f"{file}: is no TOML: nested too deeply") from None
    except (ValueError, ArithmeticError):  # of int and Decimal
        raise FileError(f"{file}: is no TOML: a number has too many digits") from None
    faults = [f"{file}: {problem}" for problem in _top_problems(content)]
    tables = content.get(TABLE, [])
    readers = [_Reader(table, number, place) for number, table in enumerate(tables if _is_tables(tables) else [], 1)]
    declared = [reader.read() for reader in readers]
    faults += [f"{file}: {reader.title}: {problem}" for reader in readers for problem in reader.problems]
    faults += [f"{file}: {problem}" for problem in _twice(readers)]
    if faults:
        raise FileError("\n".join(faults))
    return Document(content["manager"], tuple(one for one in declared if one is not None))


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _top_problems(content: Mapping[str, Any]) -> Iterator[str]:
    for key in content.keys() - {"manager", TABLE}:
        mend = did_you_mean(key, ("manager", TABLE), f"there are manager and [[{TABLE}]]")
        yield f"{brief(key)}: there is no such key{mend}"
    if "manager" not in content:
        yield 'manager: is missing; name who manages these, such as manager = "shop": what it made is its own'
    else:
        try:
            check_name("manager", content["manager"])
        except SubscriptionError as error:
            yield str(error)
    if not _is_tables(content.get(TABLE, [])):
        yield f"{TABLE}: write each as a table of its own, [[{TABLE}]]"


def _twice(readers: list[_Reader]) -> Iterator[str]:
    seen: dict[tuple[str, str], int] = {}
    for reader in readers:
        first = seen.setdefault((reader.tenant, reader.name), reader.number) if reader.name else reader.number
        if first != reader.number:
            yield f"{reader.title}: name: number {first} has it already; each tenant's names are unlike each other"


@dataclass
class _Reader:
    """Reads one table and gathers its problems."""

    table: Mapping[str, Any]
    number: int
    place: Place
    problems: list[str] = field(default_factory=list)
    name: str = ""
    tenant: str = ""

    @property
    def title(self) -> str:
        """How messages call the table."""
        return f"{TABLE} {self.name or f'number {self.number}'}"

    def read(self) -> Declared | None:
        """Return what the table declares; None where there are problems."""
        with self._gathering():
            if "name" not in self.table:
                raise SubscriptionError("name: is missing; it is what the file knows a subscription by")
            self.name = check_name("name", self.table["name"])
        self._refuse_unknown()
        with self._gathering():
            self.tenant = self._read_tenant()
        scheme = self._read_scheme()
        columns, given = self._read_columns()
        secrets: dict[str, GivenSecret | Keep | None] = {SIGNING: self._read_signing(scheme, given)}
        for one in SECRETS:
            secrets[one.name] = self._read_secret(one.name, one.check, given)
        if self.problems:
            return None
        return Declared(
            tenant=self.tenant, name=self.name, scheme=scheme, columns=columns, secrets=secrets, given=given
        )

    @contextmanager
    def _gathering(self) -> Iterator[None]:
        try:
            yield
        except SubscriptionError as error:
            self.problems.append(str(error))

    def _try(self, read: Callable[[], T | None]) -> T | None:
        """Return what this reads; None, and a problem, where it is refused."""
        try:
            return read()
        except SubscriptionError as error:
            self.problems.append(str(error))
            return None

    def _refuse_unknown(self) -> None:
        for key in (key for key in self.table if key not in _KEYS):
            mend = did_you_mean(key, _KEYS, "docs/subscriptions.md lists the fields")
            self.problems.append(f"{brief(key)}: there is no such field{mend}")

    def _read_tenant(self) -> str:
        every = self.table.get("every_tenant", False)
        if not isinstance(every, bool):
            raise SubscriptionError(f"every_tenant: {brief(every)} is not true or false")
        if every and "tenant" in self.table:
            raise SubscriptionError("every_tenant: excludes tenant; leave one of the two out")
        return "*" if every else check_tenant(self.table.get("tenant", ""))

    def _read_scheme(self) -> str:
        scheme = self.table.get("scheme", "standard")
        if scheme == schemes.UNSIGNED:
            return schemes.UNSIGNED
        return self._try(lambda: str(schemes.named(scheme).name)) or "standard"

    def _read_columns(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what to store of each column, and what verbs take of those that the table has."""
        columns: dict[str, Any] = {one.name: one.default for one in COLUMNS} | {"name": self.name}
        given: dict[str, Any] = {"name": self.name}
        for one in (one for one in COLUMNS if one.name != "name"):
            with self._gathering():
                if one.name in self.table:
                    given[one.name] = self._value_of(one.name)
                if given.get(one.name) is KEEP:
                    columns["url"] = KEEP
                else:
                    columns[one.name] = one.check_value(given.get(one.name))
        with self._gathering():
            form = formats.named(columns["format"])
            if columns["url"] is not KEEP and not is_reference(self.table.get("url")):
                self._refuse_plain_credential(columns["url"], form.name)
            columns["format_settings"] = formats.check_settings(form, columns["format_settings"] or {})
        return columns, {name: value for name, value in given.items() if value is not KEEP}

    def _refuse_plain_credential(self, url: object, form: str) -> None:
        if isinstance(url, str) and shown_url(url, form) != url:
            raise SubscriptionError(f"url: holds a credential, which does not belong in the file; {_BY_REFERENCE}")

    def _value_of(self, name: str) -> Any:
        value = self.table[name]
        if name == "url" and is_keep(value):
            return KEEP
        if name == "url" and is_reference(value):
            return resolve(name, value, self.place)[0].reveal()
        if name == "filter" and isinstance(value, str):
            try:
                return read_filter(value)
            except ValueError as error:
                raise SubscriptionError(f"filter: is no JSON: {error}") from None
        return value

    def _read_signing(self, scheme: str, given: dict[str, Any]) -> GivenSecret | None:
        def read() -> GivenSecret:
            sources: list[str] = []
            text = signing_secret(OwnSecret(scheme, self._leaf("secret", self.table["secret"], sources), None))
            given["secret"] = text
            return GivenSecret(Secret(text), public_key(text, scheme), sources[0])

        return self._try(read) if "secret" in self.table else None

    def _read_secret(self, name: str, check: Callable[[str, Any], Any], given: dict[str, Any]) -> Any:
        """Return a kind of secret as it would be stored, KEEP, or None."""

        def read() -> GivenSecret | None:
            sources: list[str] = []
            given[name] = self._told(name, self.table[name], sources)
            stored = check(name, given[name])
            return stored and GivenSecret(Secret(stored[0]), stored[1], ", ".join(dict.fromkeys(sources)))

        if name not in self.table:
            return None
        return KEEP if is_keep(self.table[name]) else self._try(read)

    def _told(self, name: str, value: Any, sources: list[str]) -> Any:
        """Return a secret as the verbs take it, every reference in it replaced by what it stands for."""
        if name == "format_secret":
            return self._leaf(name, value, sources)
        if is_reference(value) and name != "tls":
            text, source = resolve(name, value, self.place)
            sources.append(source)
            return _json_object(name, text)
        if not isinstance(value, Mapping):
            raise SubscriptionError(f"{name}: must be a table; {_BY_REFERENCE}, or {{ keep = true }}")
        return {key: self._leaf(f"{name}.{key}", one, sources) for key, one in value.items()}

    def _leaf(self, name: str, value: Any, sources: list[str]) -> Any:
        if isinstance(value, Mapping):
            if not is_reference(value):
                raise SubscriptionError(f"{name}: is no reference; {_BY_REFERENCE}")
            text, source = resolve(name, value, self.place)
            sources.append(source)
            return text.reveal()
        secret_header = name.startswith("headers.") and _SECRET_HEADER.search(name.removeprefix("headers."))
        if name in _NEVER_PLAIN or secret_header:
            raise SubscriptionError(f"{name}: a secret does not belong in the file; {_BY_REFERENCE}")
        return value


def _json_object(name: str, text: Secret) -> Any:
    try:
        found = json.loads(text.reveal())
    except (ValueError, RecursionError):
        raise SubscriptionError(f"{name}: what the reference stands for is no JSON that can be read") from None
    if not isinstance(found, dict):
        raise SubscriptionError(f"{name}: what the reference stands for must be one JSON object")
    return found
