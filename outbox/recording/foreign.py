"""Values of Django in an event's data, known by the names of their classes: Django need not be installed."""

from __future__ import annotations

__all__ = ["is_lazy_text", "mend_of"]

_LAZY = "django.utils.functional.Promise"
_MENDS = {
    "django.db.models.base.Model": "is a model's instance, and whatever is in it would be sent; give the fields that "
    "receivers shall have, e.g. {'id': order.pk}, or model_to_dict(order, fields=[…])",
    "django.db.models.query.QuerySet": "is a QuerySet; give rows as a list, e.g. list(orders.values('id', 'cents'))",
    "django.db.models.manager.BaseManager": "is a manager; give rows as a list, e.g. list(order.items.values('id'))",
    "django.db.models.fields.files.FieldFile": "is a file's field; give its name or url",
}


def is_lazy_text(value: object) -> bool:
    """Tell whether it is what gettext_lazy() and its kind return: a text that is made when it is read."""
    return _LAZY in _names(value)


def mend_of(value: object) -> str | None:
    """Return why a value of Django's is refused, and what to give instead; None for any other value."""
    return next((_MENDS[name] for name in _names(value) if name in _MENDS), None)


def _names(value: object) -> list[str]:
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in type(value).__mro__]
