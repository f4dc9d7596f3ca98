"""Split the text of an expression into tokens, each with its place in the text."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, NoReturn

from outbox.transformation.digits import Digits

__all__ = ["ExpressionError", "Token", "tokens_of"]

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>-?[0-9]+)
      | (?P<quoted>"(?:[^"\\]|\\.)*+")
      | (?P<raw>'(?:[^'\\]|\\.)*+')
      | (?P<literal>`(?:[^`\\]|\\.)*+`)
      | (?P<sign>\[\?|\[\]|\|\||&&|[=!<>]=|[][.*,:@(){}|&<>!])""",
    re.VERBOSE | re.DOTALL,
)
_UNCLOSED = {'"': "quoted name", "'": "raw string", "`": "literal"}
_MAX_DIGITS = 100  # of an integer in the expression


class ExpressionError(ValueError):
    """An expression cannot be used: `what` is wrong at `at`, the place of a character, from 0."""

    def __init__(self, at: int, what: str) -> None:
        super().__init__(what)
        self.at = at
        self.what = what

    def told(self, text: str) -> str:
        """Return what is wrong with this expression, with the place and how it goes on there."""
        here = ascii(text[self.at : self.at + 20])[1:-1]
        near = f" ({here}{'…' if len(text) > self.at + 20 else ''})" if here else ""
        return f"at character {self.at + 1}{near}: {self.what}"


class Token(NamedTuple):
    """A token: its kind (a sign is its own kind), where it begins, and its value where it has one."""

    kind: str
    at: int
    value: Any = None


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of an expression, and one of the kind 'end'. Raises ExpressionError."""
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _not_a_token(text, at)
        if (kind := match.lastgroup or "") != "space":
            found.append(_token(kind, at, match[0]))
        at = match.end()
    found.append(Token("end", at))
    return found


def _token(kind: str, at: int, text: str) -> Token:
    if kind == "sign":
        return Token(text, at)
    if kind == "name":
        return Token(kind, at, text)
    if kind == "number":
        return Token(kind, at, _integer(at, text))
    if kind == "raw":
        return Token("literal", at, text[1:-1].replace("\\'", "'"))
    if kind == "literal":
        return Token(kind, at, _json(at, text[1:-1].replace("\\`", "`"), "a literal in backticks"))
    return Token(kind, at, _json(at, text, "a quoted name"))


def _integer(at: int, text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ExpressionError(at, f"a number of {len(text)} digits; the limit is {_MAX_DIGITS}")
    return int(text)


def _json(at: int, text: str, what: str) -> object:
    try:
        value = json.loads(text, parse_float=Digits.of, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ExpressionError(at, f"{what} holds a lone surrogate, which is no text") from None
    except RecursionError:
        raise ExpressionError(at, f"{what} is nested too deep") from None
    except ValueError:
        mend = "; of text write `\"text\"` or 'text'" if what.startswith("a literal") else ""
        raise ExpressionError(at, f"{what} must hold JSON{mend}") from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _not_a_token(text: str, at: int) -> ExpressionError:
    if what := _UNCLOSED.get(text[at]):
        return ExpressionError(at, f"this {what} is never closed; end it with {text[at]}")
    if text[at] == "=":
        return ExpressionError(at, "= compares nothing; write ==")
    return ExpressionError(at, f"{text[at]!a} means nothing here; put names with other characters in double quotes")
