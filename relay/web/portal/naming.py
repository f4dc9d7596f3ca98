"""What the portal calls an endpoint: its description where customers have those, else its name, else its URL alone.

A description is the operator's own note unless `portal_descriptions` says that it is the customer's.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from outbox.errors import SubscriptionError

if TYPE_CHECKING:
    from fastapi import Request

    from outbox.subscriptions import Subscription
    from relay.config.options import Config

__all__ = ["MAX_CHARACTERS", "called", "called_with_url", "check_description", "described", "has_descriptions",
           "on_one_line"]  # fmt: skip

MAX_CHARACTERS = 255
"""The longest description that a customer may write, of the 2 kB that the field holds: it is a heading."""
_SHOWN_CHARACTERS = 80
_SEEN = "LNPS"  # letters, numbers, punctuation, symbols: it is what people click on
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters and a symbol that are blank all the same


def has_descriptions(request: Request) -> bool:
    """Tell whether customers see and write descriptions."""
    config: Config = request.app.state.config
    return config.portal_descriptions


def described(request: Request, item: Subscription) -> str:
    """Return the description on one line, however it was written; '' where it is none of a customer's.

    Commands, API and files take any note: one in which nothing can be seen would be a link that nobody can click on.
    """
    words = on_one_line(item.description) if has_descriptions(request) else ""
    return words if _can_be_seen(words) else ""


def called(request: Request, item: Subscription) -> str:
    """Return what stands before the URL, short enough for a list; '' where there is nothing but the URL."""
    words = described(request, item) or item.name or ""
    return words if len(words) <= _SHOWN_CHARACTERS else words[: _SHOWN_CHARACTERS - 1].rstrip() + "…"


def called_with_url(request: Request, item: Subscription) -> str:
    """Return what it is called and its URL as one text, for a choice or within a sentence."""
    words = called(request, item)
    return f"{words} ({item.url})" if words else item.url


def check_description(given: str) -> str:
    """Return a description that a customer wrote, on one line. Raises SubscriptionError."""
    words = on_one_line(given)
    if len(words) > MAX_CHARACTERS:
        raise SubscriptionError(f"description: is {len(words)} characters, at most {MAX_CHARACTERS} are allowed")
    if any(unicodedata.category(one) == "Cc" for one in words):
        raise SubscriptionError("description: has a control character, which nobody can read")
    if words and not _can_be_seen(words):
        raise SubscriptionError("description: has nothing that can be seen; write some words, or leave it empty")
    return words


def _can_be_seen(words: str) -> bool:
    return any(unicodedata.category(one)[0] in _SEEN and one not in _BLANK for one in words)


def on_one_line(text: str) -> str:
    """Return the words of a text with one space between them."""
    return " ".join(text.split())
