-- The tables. Principle: a row in a hot table (pending, deliveries) is work still to do; when it is done it leaves, and
-- its history stays in append-only tables (events, resolutions, attempts).

create sequence outbox.events_seq as bigint;

-- UUIDv7 (RFC 9562): the v4 random bits of gen_random_uuid() with 48 bits of Unix milliseconds in front.
create function outbox.uuid7() returns uuid language sql volatile parallel safe
begin atomic
    select encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing
        substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
        52, 1), 53, 1), 'hex')::uuid;
end;

-- One fact each, insert-only. payload is the exact JSON text of the event's data: never jsonb, which reorders keys and
-- rewrites numbers. seq is the database's order and the partition key; it is drawn by nextval, not identity, because
-- identity on a partition behaves differently by server version.
create table outbox.events (
    seq bigint not null default nextval('outbox.events_seq'),
    id uuid not null default outbox.uuid7(),
    tenant text not null default '',
    type text not null,
    key text,
    payload text not null,
    recorded_at timestamptz not null default clock_timestamp(),
    available_at timestamptz,
    primary key (seq),
    constraint tenant_is_text check (octet_length(tenant) <= 256 and tenant <> '*'),
    constraint type_is_dotted_words check (octet_length(type) <= 128 and type ~ '^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$'),
    constraint key_is_text check (octet_length(key) <= 1024),
    constraint payload_is_json check (payload::json is not null),
    constraint seq_is_drawn check (seq between 1 and 4611686018427387904),
    constraint recorded_at_is_a_date check (recorded_at >= '0001-01-01Z' and recorded_at < '10000-01-01Z'),
    constraint available_at_is_a_date check (available_at >= '0001-01-01Z' and available_at < '10000-01-01Z')
) partition by range (seq);
alter sequence outbox.events_seq owned by outbox.events.seq;
create index events_id on outbox.events (id);
create table outbox.events_default partition of outbox.events default;

-- Presence = not yet fanned out. Presence is the truth: a cursor would lose transactions that commit late.
create table outbox.pending (
    event_seq bigint primary key
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- Runs as its owner, so that an application needs no right on pending; every name is qualified, so no SET is needed.
create function outbox.mark_pending() returns trigger language plpgsql security definer as $$
begin
    insert into outbox.pending (event_seq) select seq from inserted;
    return null;
end $$;
create trigger mark_pending after insert on outbox.events
    referencing new table as inserted for each statement execute function outbox.mark_pending();

-- Who wants which events where. tenant '*' sees every tenant's events; only the operator's command line makes one.
-- paused by a person, disabled by the relay (410 Gone) or a person, held back by a receiver's Retry-After: in each case
-- what is due waits, unasked and uncharged. final_statuses: the 4xx answers after which a delivery is not tried again.
create table outbox.subscriptions (
    id uuid primary key default outbox.uuid7(),
    tenant text not null default '',
    url text not null,
    types text[] not null,
    description text not null default '',
    metadata jsonb not null default '{}',
    timeout_seconds integer not null default 15,
    schedule_seconds integer[] not null default '{5,300,1800,7200,18000,36000,50400,72000,86400}',
    scheme text not null default 'standard',
    final_statuses smallint[] not null default '{}',
    paused_at timestamptz,
    disabled_at timestamptz,
    disabled_reason text,
    removed_at timestamptz,
    held_until timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    version bigint not null default 1,
    constraint tenant_is_text check (octet_length(tenant) <= 256),
    constraint url_is_http check (url ~ '^https?://' and octet_length(url) <= 8000),
    constraint types_are_patterns check (cardinality(types) between 1 and 200),
    constraint metadata_is_object check (jsonb_typeof(metadata) = 'object'),
    constraint timeout_in_range check (timeout_seconds between 1 and 300),
    constraint schedule_in_range check (cardinality(schedule_seconds) <= 20
        and 0 <= all (schedule_seconds) and 604800 >= all (schedule_seconds)
        and array_position(schedule_seconds, null) is null),
    constraint scheme_is_a_word check (scheme ~ '^[a-z0-9][a-z0-9-]{0,31}$'),
    constraint final_statuses_are_4xx check (cardinality(final_statuses) <= 100
        and 400 <= all (final_statuses) and 499 >= all (final_statuses)
        and array_position(final_statuses, null) is null and not final_statuses && '{408,410,425,429}'),
    constraint disabled_with_a_reason check ((disabled_at is null) = (disabled_reason is null))
);

-- Public keys (X25519) that secrets are sealed to; a relay holds the private ones. The newest is used. key is base64 of
-- 32 bytes, id the beginning of its SHA-256.
create table outbox.sealing_keys (
    id text primary key,
    key text not null,
    created_at timestamptz not null default clock_timestamp(),
    constraint key_is_32_bytes check (octet_length(decode(key, 'base64')) = 32),
    constraint id_is_of_the_key check (id = left(encode(sha256(decode(key, 'base64')), 'hex'), 16)),
    constraint created_at_is_a_date check (created_at >= '0001-01-01Z' and created_at < '10000-01-01Z')
);

-- What a subscription keeps secret, sealed or, while there is no sealing key, in clear (outbox/sealing.py has the form).
-- Of kind 'signing' there is more than one only while a rotation overlaps, of the others (JSON text) one at most. hint is
-- what may be shown of it; sealed_to is the id of the key that it is sealed to, null in clear.
create table outbox.secrets (
    id uuid primary key default outbox.uuid7(),
    subscription_id uuid not null references outbox.subscriptions (id) on delete cascade,
    kind text not null default 'signing',
    secret text not null,
    hint text not null default '',
    sealed_to text generated always as (case when starts_with(secret, 'sealed:') then split_part(secret, ':', 3) end) stored,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    constraint kind_is_known check (kind in ('signing', 'headers', 'authentication', 'tls'))
);
create index secrets_subscription on outbox.secrets (subscription_id);
create unique index secrets_one_of_a_kind on outbox.secrets (subscription_id, kind) where kind <> 'signing';

-- What fan_out joins: one row a (tenant, pattern) of every subscription that is not removed. Kept by trigger.
create table outbox.subscription_types (
    tenant text not null,
    pattern text not null,
    subscription_id uuid not null references outbox.subscriptions (id) on delete cascade,
    primary key (tenant, pattern, subscription_id)
);
create index subscription_types_subscription on outbox.subscription_types (subscription_id);

create function outbox.keep_subscription_types() returns trigger language plpgsql security definer as $$
begin
    delete from outbox.subscription_types where subscription_id operator(pg_catalog.=) new.id;
    if new.removed_at is null then
        insert into outbox.subscription_types (tenant, pattern, subscription_id)
            select distinct new.tenant, pattern, new.id from pg_catalog.unnest(new.types) pattern;
    end if;
    return null;
end $$;
create trigger keep_subscription_types after insert or update of tenant, types, removed_at on outbox.subscriptions
    for each row execute function outbox.keep_subscription_types();

-- Relays cache a subscription by its version, which every change moves, whoever makes it; but not a hold that begins or
-- is prolonged: a storm of 429s would make every relay read the subscription again and again.
create function outbox.move_version() returns trigger language plpgsql as $$
begin
    new.version := old.version operator(pg_catalog.+) 1;
    new.updated_at := pg_catalog.clock_timestamp();
    return new;
end $$;
create trigger move_version before update on outbox.subscriptions
    for each row when ((new.held_until > coalesce(old.held_until, '-infinity')) is not true)
    execute function outbox.move_version();

create function outbox.move_version_of_secret() returns trigger language plpgsql security definer as $$
begin
    update outbox.subscriptions set updated_at = pg_catalog.clock_timestamp()
        where id operator(pg_catalog.=) coalesce(new.subscription_id, old.subscription_id);
    return null;
end $$;
create trigger move_version_of_secret after insert or update or delete on outbox.secrets
    for each row execute function outbox.move_version_of_secret();

-- Outstanding work only: one event for one subscription. id is a UUIDv7 and lease a random number, both made by the
-- relay: a sequence re-issues numbers after a crash, and a late success would then delete a stranger's delivery.
-- due_at is both "not before" and "lease expires": a crash needs no reaper, the row becomes due again.
-- crashes counts the times in a row that a process ended while this was the one suspect it was sending.
create table outbox.deliveries (
    id uuid primary key,
    event_seq bigint not null,
    subscription_id uuid not null,
    due_at timestamptz not null,
    attempts smallint not null default 0,
    crashes smallint not null default 0,
    lease bigint,
    constraint counts_from_zero check (attempts >= 0 and crashes >= 0),
    constraint leased_was_attempted check (lease is null or attempts > 0)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index deliveries_due on outbox.deliveries (subscription_id, due_at, id);
create index deliveries_waiting on outbox.deliveries (due_at, subscription_id) where lease is null;

-- One row a fan_out batch: which events were resolved and how many subscriptions each matched. It tells
-- "no subscriber" from "lost". seqs is ascending, matches is parallel to it.
create table outbox.resolutions (
    at timestamptz not null default clock_timestamp(),
    first_seq bigint not null,
    seqs bigint[] not null,
    matches integer[] not null
);
-- Compressing these arrays would take as long as inserting the deliveries of the batch.
alter table outbox.resolutions alter seqs set storage external, alter matches set storage external;
create index resolutions_first_seq on outbox.resolutions (first_seq);
create index resolutions_at on outbox.resolutions using brin (at);

-- One POST each, never updated. Also the record that a delivery is done, so it outlives its event. outcome is the class
-- of what the network said; url to excerpt are kept for failures only (for all by a setting). A test send has no event.
create table outbox.attempts (
    delivery_id uuid not null,
    event_seq bigint,
    subscription_id uuid not null,
    number smallint not null,
    at timestamptz not null default clock_timestamp(),
    verdict text not null,
    outcome text not null,
    status smallint,
    milliseconds integer not null,
    error text,
    url text,
    address text,
    headers text,
    excerpt bytea,
    constraint verdict_is_known check (verdict in ('delivered', 'retry', 'dead', 'test'))
) partition by range (at);
create index attempts_delivery on outbox.attempts (delivery_id);
create index attempts_event on outbox.attempts (event_seq);
create index attempts_subscription on outbox.attempts (subscription_id, at);
create table outbox.attempts_default partition of outbox.attempts default;

-- Left the hot table with a reason and a copy of its own of the event; leaves only by replay or explicit purge.
-- subscription_id is null for an event that could not even be resolved.
create table outbox.dead_letters (
    delivery_id uuid primary key,
    event_seq bigint not null,
    event_id uuid not null,
    subscription_id uuid,
    tenant text not null,
    type text not null,
    key text,
    payload text not null,
    recorded_at timestamptz not null,
    attempts smallint not null,
    died_at timestamptz not null default clock_timestamp(),
    reason text not null,
    error text
);
create index dead_letters_subscription on outbox.dead_letters (subscription_id, died_at);
create index dead_letters_died_at on outbox.dead_letters (died_at);
create index dead_letters_event on outbox.dead_letters (event_seq);
