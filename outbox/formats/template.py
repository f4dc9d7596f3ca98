"""The texts of chat formats: `Order {data.order} was paid`, whose parts are filled in from the event.

A part is {type}, {id}, {time}, {key}, {tenant}, {data}, or a path into the data such as {data.customer.name}.
"""

from __future__ import annotations

import re

from outbox._text import brief, complaint, nearest
from outbox.errors import SubscriptionError

__all__ = ["PARTS", "check_template", "split_template"]

PARTS = ("type", "id", "time", "key", "tenant", "data")
MAX_TEMPLATE_BYTES = 2000
_PART = re.compile(r"\{([^{}]*)\}")


def split_template(text: str) -> list[str]:
    """Return literal, part, literal, part, …, literal."""
    return _PART.split(text)


def check_template(path: str, value: object) -> str:
    """Return the text. Raises SubscriptionError where a part is unknown, a brace stands alone, or there is no text."""
    if refused := complaint(path, value, MAX_TEMPLATE_BYTES):
        raise SubscriptionError(refused)
    text = str(value)
    pieces = split_template(text)
    for part in pieces[1::2]:
        if part not in PARTS and not (part.startswith("data.") and all(part.split("."))):
            close = nearest(part.partition(".")[0], PARTS)
            mend = f"did you mean {{{close}}}?" if close else "there are " + ", ".join(f"{{{one}}}" for one in PARTS)
            raise SubscriptionError(f"{path}: {brief('{' + part + '}')} is no part of an event; {mend}")
    if any(brace in literal for literal in pieces[::2] for brace in "{}"):
        raise SubscriptionError(f"{path}: has a brace that belongs to no part; write parts as {{data.order}}")
    if not text.strip():
        raise SubscriptionError(f"{path}: is empty; leave it out, or write text such as Order {{data.order}}")
    return text
