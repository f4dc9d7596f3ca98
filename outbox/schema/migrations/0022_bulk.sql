-- Bulk operations: put back many deliveries at a rate, by relays, a batch a transaction. What a batch puts back and how far
-- the operation is by then are committed together, so each delivery is put back once, whoever dies in between.
set local lock_timeout = '5s';

-- kind: recover (of one endpoint what died or waits for a retry), replay (a window of events that went to a subscription),
-- backfill (events that it never had), redrive (dead letters by filter). tenant: who asked; null is the operator.
-- parameters: what was asked for, times as dates. plan: what a dry run counted. phase, after_* and up_to_seq: how far it is;
-- 'dead' and 'waiting' go by (after_at, after_id), 'events' by after_seq. rate: deliveries a second; allowed_at is when the
-- next one may go, and lies in the past by what was not used. holder: the relay process that is at work until leased_until.
-- xid: the transaction of the last batch.
create table outbox.bulk_operations (
    id uuid primary key default outbox.uuid7(),
    kind text not null,
    tenant text,
    subscription_id uuid,
    parameters jsonb not null default '{}',
    plan jsonb not null default '{}',
    state text not null default 'planned',
    rate integer not null default 100,
    done bigint not null default 0,
    passed_over bigint not null default 0,
    phase text not null,
    after_at timestamptz,
    after_id uuid,
    after_seq bigint not null default -1,
    up_to_seq bigint,
    allowed_at timestamptz not null default clock_timestamp(),
    holder uuid,
    leased_until timestamptz,
    failures smallint not null default 0,
    last_error text,
    xid xid8,
    requested_by text not null default outbox.actor(),
    created_at timestamptz not null default clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz,
    constraint kind_is_known check (kind in ('recover', 'replay', 'backfill', 'redrive')),
    constraint state_is_known check (state in ('planned', 'running', 'paused', 'done', 'cancelled', 'failed')),
    constraint phase_is_known check (phase in ('dead', 'waiting', 'events')),
    constraint rate_in_range check (rate between 1 and 100000),
    constraint counts_from_zero check (done >= 0 and passed_over >= 0 and failures >= 0),
    constraint subscription_is_named check (kind = 'redrive' or subscription_id is not null),
    constraint documents_are_objects check (jsonb_typeof(parameters) = 'object' and jsonb_typeof(plan) = 'object'
        and octet_length(parameters::text) <= 10000 and octet_length(plan::text) <= 100000),
    constraint times_are_dates check (
        least(after_at, allowed_at, leased_until, created_at, started_at, finished_at) >= '0001-01-01Z'
        and greatest(after_at, allowed_at, leased_until, created_at, started_at, finished_at) < '10000-01-01Z')
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
create index bulk_operations_running on outbox.bulk_operations (id) where state = 'running';
create index bulk_operations_subscription on outbox.bulk_operations (subscription_id);

-- What may follow what, and what a start fixes: nothing that comes later is put back by the operation itself.
-- A resolution tells that an event was recorded before; so the first event since a time is found without reading others.
create function outbox.guard_bulk() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    if (old.state, new.state) not in (
            ('planned', 'running'), ('planned', 'cancelled'), ('running', 'paused'), ('running', 'done'),
            ('running', 'failed'), ('running', 'cancelled'), ('paused', 'running'), ('paused', 'cancelled'),
            ('failed', 'running'), ('failed', 'cancelled')) then
        raise 'a bulk operation that is % does not become %', old.state, new.state using errcode = 'check_violation',
            schema = 'outbox', table = 'bulk_operations', constraint = 'state_follows';
    end if;
    new.holder := null;
    new.leased_until := null;
    if new.state = 'running' then
        new.failures := 0;
        new.last_error := null;
        new.finished_at := null;
        new.allowed_at := clock_timestamp() - interval '1 second';
    end if;
    if old.state = 'planned' and new.state = 'running' then
        new.started_at := clock_timestamp();
        new.up_to_seq := (select last_value from outbox.events_seq);
        if new.phase = 'events' and new.parameters ? 'since' then
            new.after_seq := coalesce((select min(first_seq) - 1 from outbox.resolutions
                                       where at >= (new.parameters ->> 'since')::timestamptz), new.up_to_seq);
        end if;
    elsif new.state in ('done', 'failed', 'cancelled') then
        new.finished_at := clock_timestamp();
    end if;
    return new;
end $$;
create trigger guard before update of state on outbox.bulk_operations
    for each row when (old.state <> new.state) execute function outbox.guard_bulk();

-- Who planned, started, paused, … it, and what came of it. Of batches nothing is noted.
create function outbox.note_bulk() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    insert into outbox.audit (action, subject, tenant, details) values (
        case when tg_op = 'INSERT' then 'bulk planned'
             when old.state = new.state then 'bulk rate set'
             when new.state = 'running' then case old.state when 'planned' then 'bulk started' else 'bulk resumed' end
             when new.state = 'paused' then 'bulk paused'
             when new.state = 'done' then 'bulk done'
             when new.state = 'failed' then 'bulk failed'
             else 'bulk cancelled' end,
        outbox.text_id('bulk', new.id), coalesce(new.tenant, ''),
        jsonb_strip_nulls(jsonb_build_object(
            'kind', new.kind, 'filter', new.parameters, 'rate', new.rate, 'done', new.done, 'passed_over', new.passed_over,
            'ids', case when new.subscription_id is not null
                        then jsonb_build_array(outbox.text_id('sub', new.subscription_id)) end,
            'error', new.last_error)));
    return null;
end $$;
create trigger note after insert on outbox.bulk_operations for each row execute function outbox.note_bulk();
create trigger note_update after update on outbox.bulk_operations
    for each row when (old.state <> new.state or old.rate <> new.rate) execute function outbox.note_bulk();
create trigger audit_truncate after truncate on outbox.bulk_operations
    for each statement execute function outbox.audit_truncate();

-- Who puts back what was done holds its event meanwhile: retention passes over it, and another replay waits. To lock a row
-- needs the right to change it, which no relay has.
create function outbox.hold_events(seqs bigint[]) returns void language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    execute 'select from outbox.events where seq = any ($1) order by seq for no key update' using seqs;
end $$;

-- Once its event is pruned, a dead letter has the only copy: writes these events again, and returns their numbers. The
-- trigger of the insert makes them pending, and they would go to every subscription again; that is undone here.
create function outbox.restore_events(dead uuid[]) returns bigint[] language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    numbers constant bigint[] := array(select distinct event_seq from outbox.dead_letters where delivery_id = any (dead));
    there bigint[];
    restored bigint[];
begin
    execute 'select array_agg(seq) from outbox.events where seq = any ($1)' into there using numbers;
    with missing as (
        select distinct on (event_seq) * from outbox.dead_letters
        where delivery_id = any (dead) and payload is not null and event_seq <> all (coalesce(there, '{}'))
        order by event_seq),
    written as (
        insert into outbox.events (seq, id, tenant, type, key, payload, recorded_at)
        select event_seq, event_id, tenant, type, key, payload, recorded_at from missing returning seq)
    select array_agg(seq) into restored from written;
    delete from outbox.pending where event_seq = any (restored);
    return coalesce(restored, '{}');
end $$;

-- A dead letter that a bulk operation puts back is told by the operation.
do $$
declare
    was constant text := pg_get_functiondef('outbox.audit_dead_letter()'::regprocedure);
    becomes constant text := replace(was, 'if exists (select from outbox.audit where',
        'if exists (select from outbox.bulk_operations where state = ''running'' and xid = pg_current_xact_id())
            or exists (select from outbox.audit where');
begin
    if was = becomes then
        raise 'audit_dead_letter is not the function that is known';
    end if;
    execute becomes;
end $$;
set local lock_timeout to default;
