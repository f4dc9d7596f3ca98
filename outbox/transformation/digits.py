"""Numbers that are no integers, kept as they were written: 19.90 stays 19.90, and 1e2 is not made 100."""

from __future__ import annotations

import os
from decimal import Decimal, InvalidOperation

__all__ = ["Digits", "unquote"]

# It goes through the encoder of JSON as a str does, which is fast, and its quotes are taken off afterwards. The marks
# cannot be guessed, so no text of a payload is taken for a number.
_BEGIN, _END = (f"\0{os.urandom(8).hex()}" for _ in range(2))
_QUOTED_BEGIN, _QUOTED_END = f'"\\u0000{_BEGIN[1:]}', f'\\u0000{_END[1:]}"'


class Digits(str):
    """A number with a point or an exponent. As a str it is its text between marks; `text` and `value` are without."""

    __slots__ = ()

    @classmethod
    def of(cls, text: str) -> Digits:
        """Return the number that this text of JSON spells."""
        return cls(_BEGIN + text + _END)

    @property
    def text(self) -> str:
        """The number as it was written."""
        return self[len(_BEGIN) : -len(_END)]

    @property
    def value(self) -> Decimal:
        """The exact number. Raises ValueError where its exponent is beyond what a Decimal holds."""
        try:
            return Decimal(self.text)
        except InvalidOperation:
            raise ValueError("a number's exponent is out of range") from None


def unquote(text: str) -> str:
    """Return JSON text in which every Digits was encoded as a str, with the numbers themselves."""
    return text.replace(_QUOTED_BEGIN, "").replace(_QUOTED_END, "")
