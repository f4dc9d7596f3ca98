"""Who runs: the row of each relay process, which it signs again every few seconds and deletes when it stops."""

from __future__ import annotations

__all__ = ["ALIVE_SECONDS", "SIGN", "SIGN_OUT", "SWEEP"]

ALIVE_SECONDS = 20.0
"""A process whose last sign of life is older than this is taken for dead; it signs every 5 to 10 s."""

SIGN = """
insert into outbox.relays as r (id, run_id, processes, host, pid, version, key_ids, leased,
                                cannot_send, cannot_send_to)
values (%(id)s, %(run_id)s, %(processes)s, %(host)s, %(pid)s, %(version)s, %(key_ids)s, %(leased)s,
        %(cannot_send)s, %(cannot_send_to)s)
on conflict (id) do update set
    seen_at = clock_timestamp(), leased = excluded.leased, host = excluded.host, pid = excluded.pid,
    version = excluded.version, key_ids = excluded.key_ids,
    cannot_send = excluded.cannot_send, cannot_send_to = excluded.cannot_send_to,
    started_at = case when (r.host, r.pid) = (excluded.host, excluded.pid) then r.started_at else clock_timestamp() end
"""
"""Sign in, give a sign of life, or take over the row of a process that ended, all by the database's clock."""

SIGN_OUT = "delete from outbox.relays where id = %(id)s and pid = %(pid)s"

# What died is shown for an hour, so that a person can see it; as long as nobody runs, nobody sweeps.
SWEEP = "delete from outbox.relays where seen_at < clock_timestamp() - interval '1 hour'"
