-- How fast, and how many at once: limits of a subscription and of a tenant, and the rate that an endpoint was found to
-- take. What moves with traffic stands in tables of its own: it moves no version of a subscription.
set local lock_timeout = '5s';

-- A rate has one spelling: so many requests in a second, a minute or an hour.
alter table outbox.subscriptions
    add column rate_limit text,
    add column rate_burst integer,
    add column max_in_flight integer,
    add constraint rate_limit_is_a_rate check (rate_limit ~ '^[1-9][0-9]{0,4}/(s|min|h)$'),
    add constraint rate_burst_in_range check (rate_burst between 1 and 10000),
    add constraint max_in_flight_in_range check (max_in_flight between 1 and 1000);

create table outbox.tenant_limits (
    tenant text collate "C" primary key,
    id uuid not null unique default outbox.uuid7(),
    rate_limit text not null,
    rate_burst integer,
    constraint tenant_is_text check (octet_length(tenant) <= 256 and tenant <> '*'),
    constraint rate_limit_is_a_rate check (rate_limit ~ '^[1-9][0-9]{0,4}/(s|min|h)$'),
    constraint rate_burst_in_range check (rate_burst between 1 and 10000)
);

-- One cell a limit: id is that of a subscription or of a tenant's limit. allowed_at is the theoretical arrival time of
-- GCRA: what was given out is paid for up to then. The rest is about an endpoint that asked for fewer requests: the
-- requests a second that it is sent (null: as many as there are), and what it took and refused since measured_from.
-- No reference to subscriptions: an insert here would wait for whoever has locked one. Housekeeping clears what is left.
create table outbox.limits (
    id uuid primary key,
    allowed_at timestamptz not null default clock_timestamp(),
    slowed_to double precision,
    measured_from timestamptz not null default clock_timestamp(),
    accepted integer not null default 0,
    refused integer not null default 0,
    calm integer not null default 0,
    constraint slowed_to_a_rate check (slowed_to > 0 and slowed_to < 'infinity'),
    constraint counts_from_zero check (accepted >= 0 and refused >= 0 and calm >= 0),
    constraint allowed_at_is_a_date check (allowed_at >= '0001-01-01Z' and allowed_at < '10000-01-01Z'),
    constraint measured_from_is_a_date check (measured_from >= '0001-01-01Z' and measured_from < '10000-01-01Z')
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
create index limits_slowed on outbox.limits (slowed_to) where slowed_to is not null;

-- Of a subscription's max_in_flight, how many each relay process may have on the wire until ends_at. By then every
-- request that it began has ended, so what a process held that is gone is free again.
create table outbox.in_flight (
    subscription_id uuid not null,
    holder uuid not null,
    slots integer not null,
    ends_at timestamptz not null,
    primary key (subscription_id, holder),
    constraint slots_are_positive check (slots > 0),
    constraint ends_at_is_a_date check (ends_at >= '0001-01-01Z' and ends_at < '10000-01-01Z')
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- A tenant's limit is read with each of its subscriptions, so a change moves their versions; and it is noted.
create function outbox.note_tenant_limit() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    whose constant text := coalesce(new.tenant, old.tenant);
begin
    if tg_op = 'UPDATE' and new.tenant <> old.tenant then
        raise 'outbox.tenant_limits: a limit stays with its tenant; delete it and insert another'
            using errcode = 'feature_not_supported';
    end if;
    insert into outbox.audit (action, subject, tenant, before, after)
        values (case tg_op when 'DELETE' then 'tenant limit removed' else 'tenant limit set' end, whose, whose,
                case when tg_op <> 'INSERT' then to_jsonb(old) - '{id,tenant}'::text[] end,
                case when tg_op <> 'DELETE' then to_jsonb(new) - '{id,tenant}'::text[] end);
    update outbox.subscriptions set updated_at = clock_timestamp()
        where id = any(array(select subscription_id from outbox.subscription_types where tenant = whose));
    return null;
end $$;
create trigger note after insert or update or delete on outbox.tenant_limits
    for each row execute function outbox.note_tenant_limit();
create trigger audit_truncate after truncate on outbox.tenant_limits
    for each statement execute function outbox.audit_truncate();
set local lock_timeout to default;
