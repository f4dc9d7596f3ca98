-- Who runs, and when each periodic task last succeeded: what `relay status` says about relays is read here, not guessed
-- from connections and their names. Both tables are tiny, and written every few seconds: a low fillfactor keeps the
-- new version of a row on its page.

-- One row a relay process, which writes it again every few seconds and deletes it when it stops. The processes of one
-- `relay run --processes N` share run_id; one that is started again takes the row over. leased: the deliveries it held
-- at its last sign of life. key_ids names the private keys it holds; they are no secrets.
create table outbox.relays (
    id uuid primary key,
    run_id uuid not null,
    processes integer not null,
    host text not null,
    pid integer not null,
    version text not null,
    key_ids text[] not null default '{}',
    leased integer not null default 0,
    started_at timestamptz not null default clock_timestamp(),
    seen_at timestamptz not null default clock_timestamp(),
    constraint counts_are_positive check (processes > 0 and leased >= 0)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- The periodic tasks of housekeeping: when each last succeeded and last failed, on whichever relay. every_seconds is
-- the time from one to the next, null where it is not known.
create table outbox.rounds (
    name text collate "C" primary key,
    every_seconds double precision,
    succeeded_at timestamptz,
    failed_at timestamptz,
    error text
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
