"""Bounds in seconds that a test shortens for the processes it starts, so that nobody waits for the real ones.

Each is {module: {name: value}}; a Stage gives them to its processes (`stage.constants`), whose
tests/support/guarded/sitecustomize.py sets them before anything reads them.
"""

from __future__ import annotations

from relay.store import turns

Constants = dict[str, dict[str, object]]

_STOPPED = 4

SHORT_STOP: Constants = {
    "relay.store.turns": {
        "STOPPED_SECONDS": _STOPPED,
        "LIMITS": turns.limits(_STOPPED),
        "SESSION": turns.session(_STOPPED),
    },
    "relay.engine.stuck_relays": {"LOOK_EVERY_SECONDS": 1.0},
}
"""A relay that stopped in a transaction loses its connection after 4 s."""

SHORT_LEASES: Constants = {"relay.store.lease": {"LEASE_SLACK_SECONDS": 2.0, "START_WITHIN_SECONDS": 1.0}}
"""A lease lasts for 2 s more than the timeout of an attempt."""
