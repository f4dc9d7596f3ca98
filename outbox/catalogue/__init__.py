"""The catalogue: which event types there are, what the data of each is, and whether a change of them breaks receivers.

`EventType` declares one and records it; `Catalogue` holds them, `default` is the process's own. `push()` stores a
catalogue in the database, where `relay` shows it, and `compare()` says what a push would change, as `relay catalogue`
does. Everything that is recorded goes through `outbox.record()`.
"""

from outbox.catalogue.collection import Catalogue, Validation, default
from outbox.catalogue.event_type import EventType
from outbox.catalogue.storing import compare, declaration_of, push, stored
from outbox.control.catalogue import CatalogueChange, TypeChange
from outbox.event_types.declared_type import DeclaredType, StoredType
from outbox.event_types.differences import Difference, compare_schemas

__all__ = [
    "Catalogue",
    "CatalogueChange",
    "DeclaredType",
    "Difference",
    "EventType",
    "StoredType",
    "TypeChange",
    "Validation",
    "compare",
    "compare_schemas",
    "declaration_of",
    "default",
    "push",
    "stored",
]
