"""The verbs that the engine asks of its database, in one class.

Each verb is written beside its statement, in the module of this package that it is about.
"""

from __future__ import annotations

from relay.store import (
    batches,
    bodies,
    bulk,
    claims,
    fan_out,
    fan_out_wide,
    filters,
    home,
    in_flight,
    lanes,
    lease,
    limits,
    poll_turn,
    polling,
    probes,
    settlement,
    sorting,
    subscriptions,
    suspects,
    unresolvable,
)
from relay.store.database import Database

__all__ = ["Store"]


class Store(Database):
    """A database with the verbs of the data plane. Ids are 16 raw bytes, and available_at 8."""

    poll = polling.poll
    sweep = polling.sweep
    take_poll_turn = poll_turn.take_poll_turn
    note_home = home.note_home
    find_changed = subscriptions.find_changed
    read_subscriptions = subscriptions.read_subscriptions
    find_first_pending = unresolvable.find_first_pending
    bury_unresolvable = unresolvable.bury_unresolvable
    fan_out = fan_out.fan_out  # last of these: from here on the name is the verb's
    choose = filters.choose
    read_ahead = filters.read_ahead
    find_ahead = filters.find_ahead
    read_filters = filters.read_filters
    find_filters = fan_out_wide.find_filters
    read_bodies = bodies.read_bodies
    claim = claims.claim
    make_cells = limits.make_cells
    find_held_cells = limits.find_held_cells
    take_slots = limits.take_slots
    take_in_flight = in_flight.take_in_flight
    find_ready = batches.find_ready
    claim_batches = batches.claim_batches
    claim_suspect = suspects.claim_suspect
    read_noted = probes.read_noted
    claim_probes = probes.claim_probes
    settle = settlement.settle
    look = lanes.look
    sweep_lanes = lanes.sweep_lanes
    release_parked = lanes.release_parked
    find_sorting = sorting.find_sorting
    await_fan_out = sorting.await_fan_out
    sort_batch = sorting.sort_batch
    end_sorting = sorting.end_sorting
    claim_bulk = bulk.claim_bulk
    read_bulk = bulk.read_bulk
    read_bulk_payloads = bulk.read_bulk_payloads
    put_back_bulk = bulk.put_back_bulk
    put_off_bulk = bulk.put_off_bulk
    end_bulk = bulk.end_bulk
    is_bulk_running = bulk.is_bulk_running
    release = lease.release
    find_locked = lease.find_locked
    is_drained = polling.is_drained
    recover = Database.recover
    close = Database.close
