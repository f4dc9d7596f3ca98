-- Erasure: everything about a tenant, a key, or a person (a place in payloads), in bounded steps, with a receipt. And
-- retention of dead letters and of the audit, and shorter retention of tenants.
set local lock_timeout = '5s';

-- value: the tenant, the key, or what stands at `path` in a payload; null once it is done, like everything that it was.
-- digest is the SHA-256 of salt, a colon and the value: whoever knows the value can tell that the receipt is about it.
-- tenant: whose events only; null for every tenant's. asked_by: the tenant who asked; null is the operator. phase and
-- after_*: how far it is. counts: rows by what was done to them. xid: the transaction of the last step.
create table outbox.erasures (
    id uuid primary key default outbox.uuid7(),
    kind text not null,
    value text,
    path text[],
    tenant text,
    asked_by text,
    salt text not null default encode(substring(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) for 16), 'hex'),
    digest text,
    cancel_undelivered boolean not null default false,
    state text not null default 'running',
    phase text not null default 'close',
    after_seq bigint not null default -1,
    after_id uuid not null default '00000000-0000-0000-0000-000000000000',
    up_to_seq bigint,
    counts jsonb not null default '{}',
    waits_until timestamptz,
    last_error text,
    xid xid8,
    requested_by text not null default outbox.actor(),
    role text not null default session_user,
    created_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    constraint kind_is_known check (kind in ('tenant', 'key', 'subject')),
    constraint state_is_known check (state in ('running', 'blocked', 'cancelled', 'done')),
    constraint phase_is_known check (phase in ('close', 'dead_letters', 'events', 'late_dead_letters', 'attempts',
                                               'subscriptions', 'audit', 'end')),
    constraint value_while_it_is_needed check ((value is null) = (state in ('done', 'cancelled'))),
    constraint path_of_a_subject check ((path is not null) = (kind = 'subject')),
    constraint path_is_short check (cardinality(path) between 1 and 32),
    constraint value_is_text check (octet_length(value) <= 4096 and (kind <> 'tenant' or value not in ('', '*'))),
    constraint times_are_dates check (
        least(created_at, waits_until, finished_at) >= '0001-01-01Z'
        and greatest(created_at, waits_until, finished_at) < '10000-01-01Z')
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
create index erasures_running on outbox.erasures (id) where state = 'running';

create function outbox.guard_erasure() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op = 'INSERT' then
        new.digest := encode(sha256(convert_to(new.salt || ':' || new.value, 'UTF8')), 'hex');
        new.up_to_seq := (select last_value from outbox.events_seq);
        return new;
    end if;
    if (old.state, new.state) not in (('running', 'blocked'), ('running', 'done'), ('running', 'cancelled'),
                                      ('blocked', 'running'), ('blocked', 'cancelled')) then
        raise 'an erasure that is % does not become %', old.state, new.state using errcode = 'check_violation',
            schema = 'outbox', table = 'erasures', constraint = 'state_follows';
    end if;
    if new.state = 'done' and (old.phase = 'end' and new.xid = pg_current_xact_id()) is not true then
        raise 'only the last step of an erasure ends it' using errcode = 'check_violation',
            schema = 'outbox', table = 'erasures', constraint = 'done_at_the_end';
    end if;
    if new.state in ('done', 'cancelled') then
        new.value := null;
        new.finished_at := clock_timestamp();
    end if;
    if new.state <> 'blocked' then
        new.last_error := null;
    end if;
    return new;
end $$;
create trigger guard before insert on outbox.erasures for each row execute function outbox.guard_erasure();
create trigger guard_update before update of state on outbox.erasures
    for each row when (old.state <> new.state) execute function outbox.guard_erasure();

-- What was erased is not told; how much, by whom and when is.
create function outbox.note_erasure() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    insert into outbox.audit (action, subject, tenant, details) values (
        case when tg_op = 'INSERT' then 'erasure started' when new.state = 'done' then 'erased'
             when new.state = 'blocked' then 'erasure blocked' when new.state = 'cancelled' then 'erasure cancelled'
             else 'erasure resumed' end,
        outbox.text_id('ers', new.id), '',
        jsonb_build_object('kind', new.kind, 'digest', new.digest, 'cancel_undelivered', new.cancel_undelivered,
                           'counts', new.counts));
    return null;
end $$;
create trigger note after insert on outbox.erasures for each row execute function outbox.note_erasure();
create trigger note_update after update on outbox.erasures
    for each row when (old.state <> new.state) execute function outbox.note_erasure();
create trigger audit_truncate after truncate on outbox.erasures
    for each statement execute function outbox.audit_truncate();

-- Whether `wanted` stands at this place of a document: as text, or as a number of the same value. Each step is a member of
-- an object or an index of an array; every element of an array is looked into where the step is no index. Not recursive:
-- a payload may be nested deeper than calls.
create function outbox.json_holds(document json, path text[], wanted text) returns boolean
    language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    level json[] := array[document];
    step text;
    place integer;
begin
    foreach step in array path || null::text loop
        place := case when step ~ '^[0-9]{1,9}$' then step end;
        while place is null and exists (select from unnest(level) one where json_typeof(one) = 'array') loop
            level := array(select one from unnest(level) one where json_typeof(one) <> 'array'
                           union all select json_array_elements(one) from unnest(level) one where json_typeof(one) = 'array');
        end loop;
        exit when step is null;
        level := array(select next from (
            select case json_typeof(one) when 'object' then one -> step when 'array' then one -> place end as next
            from unnest(level) one) entered where next is not null);
    end loop;
    return exists (
        select from (select json_typeof(one) as kind, one #>> '{}' as words from unnest(level) one
                     where json_typeof(one) not in ('object', 'null')) scalars
        where words = wanted or case when kind = 'number' and words ~ '^-?[0-9.]{1,100}$'
                                          and wanted ~ '^-?[0-9]{1,50}(\.[0-9]{1,50})?$'
                                     then words::numeric = wanted::numeric else false end);
end $$;

-- A payload without what is JSON but no text of PostgreSQL: \u0000, and half a surrogate pair. A backslash that another one
-- precedes begins no escape. `all_halves`: also what looks like a pair.
create function outbox.readable(payload text, all_halves boolean) returns json
    language sql immutable parallel safe
begin atomic
    select regexp_replace(regexp_replace(regexp_replace(payload,
        '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g'),
        '(?<!\\)((?:\\\\)*)\\u[dD][89aAbB][0-9a-fA-F]{2}' || case when all_halves then '' else '(?!\\u[dD][c-fC-F])' end,
        '\1\\ufffd', 'g'),
        case when all_halves then '' else '(?<!\\u[dD][89aAbB][0-9a-fA-F]{2})' end
            || '(?<!\\)((?:\\\\)*)\\u[dD][c-fC-F][0-9a-fA-F]{2}', '\1\\ufffd', 'g')::json;
end;

-- The same of a payload, whatever is in it.
create function outbox.payload_holds(payload text, path text[], wanted text) returns boolean
    language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
begin
    return outbox.json_holds(payload::json, path, wanted);
exception when untranslatable_character or invalid_text_representation then
    begin
        return outbox.json_holds(outbox.readable(payload, false), path, wanted);
    exception when untranslatable_character or invalid_text_representation then
        return outbox.json_holds(outbox.readable(payload, true), path, wanted);
    end;
end $$;

create function outbox.is_erased(e outbox.erasures, tenant text, key text, payload text) returns boolean
    language sql stable parallel safe
begin atomic
    select case when e.kind = 'tenant' then is_erased.tenant = e.value
                when e.tenant is not null and is_erased.tenant <> e.tenant then false
                when e.kind = 'key' then coalesce(is_erased.key = e.value, false)
                else coalesce(outbox.payload_holds(is_erased.payload, e.path, e.value), false) end;
end;

-- Adds numbers to an erasure's counts.
create function outbox.add_counts(counts jsonb, more jsonb) returns jsonb language sql immutable strict parallel safe
begin atomic
    select coalesce(jsonb_object_agg(key, total), '{}') from (
        select key, sum(value::bigint) as total from (
            select * from jsonb_each_text(counts) union all select * from jsonb_each_text(more)) both_of_them
        group by key) summed where total > 0;
end;

-- Of the first thing that a step meets: how many of these events' deliveries and pending rows there are, and until when
-- one of them is being sent. Their rows are locked; whoever replays has locked the event before, which the caller has done.
create function outbox.undelivered_of(seqs bigint[], out number bigint, out ids uuid[], out sent_until timestamptz)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform from outbox.pending where event_seq = any (seqs) order by event_seq for update;
    perform from outbox.deliveries where event_seq = any (seqs) order by id for update;
    select count(*), array_agg(id), max(due_at) filter (where lease is not null and due_at > clock_timestamp())
        into number, ids, sent_until from outbox.deliveries where event_seq = any (seqs);
    number := number + (select count(*) from outbox.pending where event_seq = any (seqs));
end $$;

-- What the endpoints said of these events' attempts: the rows stay, as the record of what was done.
create function outbox.blank_attempts(seqs bigint[]) returns bigint language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    blanked bigint;
begin
    execute 'update outbox.attempts set url = null, address = null, headers = null, excerpt = null, error = null
             where event_seq = any ($1) and (url, address, headers, excerpt, error) is distinct from
                   (null::text, null::text, null::text, null::bytea, null::text)' using seqs;
    get diagnostics blanked = row_count;
    return blanked;
end $$;

-- due, waiting, parked or suspect → gone: these deliveries, each with an attempt `cancelled` as its record; but not what a
-- relay has, which may be sending it. pending → gone: these events, which are erased next.
create function outbox.cancel_erased(ids uuid[], seqs bigint[]) returns void language plpgsql
    set search_path = pg_catalog, pg_temp as $$
begin
    with gone as (delete from outbox.deliveries
                  where id = any (ids) and (lease is not null and due_at > clock_timestamp()) is not true returning id, event_seq, subscription_id, attempts)
    insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, milliseconds)
        select id, event_seq, subscription_id, attempts, 'cancelled', 'cancelled', 0 from gone;
    delete from outbox.pending where event_seq = any (seqs);
end $$;

-- One step over events: looks at the next `batch` of them and erases those that match, with all that is theirs.
create function outbox.erase_events(e outbox.erasures, batch integer, out reached bigint, out counts jsonb, out waits timestamptz,
                                    out undelivered bigint) language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    seqs bigint[];
    ids uuid[];
    outstanding record;
    attempts bigint;
    keys bigint;
    dead bigint;
begin
    counts := '{}';
    execute 'select max(seq) from (select seq from outbox.events where seq > $1 and seq <= $2 order by seq limit $3) next_ones'
        into reached using e.after_seq, e.up_to_seq, batch;
    if reached is null then
        return;
    end if;
    execute 'select array_agg(seq), array_agg(id) from (
                 select seq, id from outbox.events where seq > $1 and seq <= $2
                 and outbox.is_erased($3, tenant, key, payload) order by seq for update) matching'
        into seqs, ids using e.after_seq, reached, e;
    if seqs is null then
        return;
    end if;
    select * into outstanding from outbox.undelivered_of(seqs);
    waits := outstanding.sent_until;
    undelivered := case when e.cancel_undelivered then 0 else outstanding.number end;
    if undelivered > 0 then
        return;
    end if;
    perform outbox.cancel_erased(outstanding.ids, seqs);
    if waits is not null then
        return;  -- for what is being sent; nothing else of these is leased any more
    end if;
    attempts := outbox.blank_attempts(seqs);
    delete from outbox.dead_letters where event_seq = any (seqs);
    get diagnostics dead = row_count;
    delete from outbox.idempotency_keys where event_id = any (ids);
    get diagnostics keys = row_count;
    execute 'delete from outbox.events where seq = any ($1)' using seqs;
    counts := jsonb_build_object('events deleted', cardinality(seqs), 'deliveries and pending cancelled', outstanding.number,
                                 'attempts blanked', attempts, 'dead letters deleted', dead,
                                 'idempotency keys deleted', keys);
end $$;

-- A tenant's subscriptions match nothing more from here on; what else carries the tenant's name goes.
create function outbox.erase_names(e outbox.erasures) returns jsonb language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    subscriptions bigint;
    others bigint;
begin
    if e.kind <> 'tenant' then
        return '{}';
    end if;
    update outbox.subscriptions set removed_at = coalesce(removed_at, clock_timestamp()) where tenant = e.value;
    get diagnostics subscriptions = row_count;
    delete from outbox.tenant_limits where tenant = e.value;
    delete from outbox.tenant_retention where tenant = e.value;
    update outbox.bulk_operations set state = 'cancelled'
        where state in ('planned', 'running', 'paused', 'failed') and (tenant = e.value or parameters ->> 'tenant' = e.value);
    update outbox.bulk_operations set tenant = case when tenant <> e.value then tenant end, parameters = parameters - 'tenant' - 'type'
        where tenant = e.value or parameters ->> 'tenant' = e.value;
    get diagnostics others = row_count;
    update outbox.erasures set state = 'cancelled'
        where id <> e.id and (tenant = e.value or asked_by = e.value) and state in ('running', 'blocked');
    update outbox.erasures set tenant = nullif(tenant, e.value), asked_by = nullif(asked_by, e.value)
        where id <> e.id and (tenant = e.value or asked_by = e.value);
    return jsonb_build_object('subscriptions closed', subscriptions, 'bulk operations blanked', others);
end $$;

-- What else may hold the value for a while: test messages. And a tenant's tokens, answers of the HTTP API and statistics; in
-- those by type, and of all together, no tenant stands.
create function outbox.erase_others(e outbox.erasures) returns jsonb language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    tests bigint;
    tokens bigint := 0;
    rollups bigint := 0;
begin
    delete from outbox.test_requests t where case when e.kind = 'tenant'
        then exists (select from outbox.subscriptions s where s.id = t.subscription_id and s.tenant = e.value)
        else position(e.value in concat_ws(E'\n', t.payload, t.answer)) > 0 and (e.tenant is null or exists (
            select from outbox.subscriptions s where s.id = t.subscription_id and s.tenant = e.tenant)) end;
    get diagnostics tests = row_count;
    if e.kind = 'tenant' then
        delete from outbox.api_requests r where exists (
            select from outbox.tokens t where t.id = r.token_id and t.tenant = e.value);
        delete from outbox.tokens where tenant = e.value;
        get diagnostics tokens = row_count;
        delete from outbox.rollups where tenant = e.value and scope in ('tenant', 'subscription');
        get diagnostics rollups = row_count;
    end if;
    return jsonb_build_object('test messages deleted', tests, 'tokens deleted', tokens, 'statistics deleted', rollups);
end $$;

-- Blanks what endpoints answered to these subscriptions from one time on and before another.
create function outbox.blank_attempts_of(subscriptions uuid[], since timestamptz, until timestamptz) returns bigint
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    blanked bigint;
begin
    execute 'update outbox.attempts set url = null, address = null, headers = null, excerpt = null, error = null
             where subscription_id = any ($1) and at >= $2 and at < $3
               and (url, address, headers, excerpt, error) is distinct from
                   (null::text, null::text, null::text, null::bytea, null::text)' using subscriptions, since, until;
    get diagnostics blanked = row_count;
    return blanked;
end $$;

-- One step over a tenant's subscriptions: blanks the next attempts of one, by time (after_seq: microseconds since 1970), or
-- deletes it when none is left. A delivery that is left goes with it, as with any removed subscription.
create function outbox.erase_subscription(e outbox.erasures, batch integer, out reached bigint, out counts jsonb)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    microsecond constant interval := '1 microsecond';
    whose uuid := (select id from outbox.subscriptions where tenant = e.value order by id limit 1 for update);
    since constant timestamptz := 'epoch'::timestamptz + (e.after_seq + 1) * microsecond;
    until timestamptz;
    number bigint;
begin
    if whose is null then
        return;
    end if;
    select max(at) + microsecond into until from (
        select at from outbox.attempts where subscription_id = whose and at >= since order by at limit batch) next_ones;
    if until is not null then
        reached := (extract(epoch from until) * 1000000)::bigint - 1;
        counts := jsonb_build_object('attempts blanked', outbox.blank_attempts_of(array[whose], since, until));
        return;
    end if;
    delete from outbox.deliveries where id = any (array(
        select id from outbox.deliveries where subscription_id = whose order by due_at, id limit batch));
    get diagnostics number = row_count;
    reached := e.after_seq;
    if number < batch then
        delete from outbox.subscriptions where id = whose;
        reached := -1;
        counts := jsonb_build_object('subscriptions deleted', 1);
    end if;
end $$;

-- One step over dead letters, by their own copy of the event.
create function outbox.erase_dead_letters(e outbox.erasures, batch integer, out reached uuid, out counts jsonb)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    seqs bigint[];
    dead bigint;
begin
    select delivery_id into reached from (
        select delivery_id from outbox.dead_letters where delivery_id > e.after_id order by delivery_id limit batch) next_ones
        order by delivery_id desc limit 1;
    with gone as (
        delete from outbox.dead_letters where delivery_id > e.after_id and delivery_id <= reached
            and outbox.is_erased(e, tenant, key, coalesce(payload, 'null')) returning event_seq)
    select count(*), array_agg(distinct event_seq) into dead, seqs from gone;
    counts := jsonb_build_object('dead letters deleted', dead, 'attempts blanked', outbox.blank_attempts(seqs));
end $$;

-- One step over attempts whose event is pruned, by number: blanks those in whose answer the value stands.
create function outbox.erase_echoes(e outbox.erasures, batch integer, out reached bigint, out counts jsonb)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    seqs bigint[];
begin
    select event_seq into reached from (
        select event_seq from outbox.attempts where event_seq > e.after_seq and event_seq <= e.up_to_seq
        order by event_seq limit batch) next_ones order by event_seq desc limit 1;
    select array_agg(distinct event_seq) into seqs from outbox.attempts a
        where event_seq > e.after_seq and event_seq <= reached
          and (position(e.value in concat_ws(E'\n', url, headers, error)) > 0
               or position(convert_to(e.value, 'UTF8') in excerpt) > 0)
          and not exists (select from outbox.events v where v.seq = a.event_seq)
          and (e.tenant is null or exists (
              select from outbox.subscriptions s where s.id = a.subscription_id and s.tenant = e.tenant));
    counts := jsonb_build_object('attempts blanked', case when seqs is null then 0 else outbox.blank_attempts(seqs) end);
end $$;

-- One step over the audit: who did what and when stays, and not what it was about.
create function outbox.erase_audit(e outbox.erasures, batch integer, out reached uuid, out counts jsonb)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    it constant jsonb := jsonb_build_object('it', e.value);
    anywhere constant jsonpath := '$.** ? (@ == $it)';  -- a value, whatever its name
    blanked bigint;
begin
    select id into reached from (
        select id from outbox.audit where id > e.after_id order by id limit batch) next_ones order by id desc limit 1;
    update outbox.audit set
        tenant = case when e.kind = 'tenant' and tenant = e.value then '' else tenant end,
        subject = case when subject = e.value then '' else subject end,
        before = null, after = null, details = '{"erased": true}'
        where id > e.after_id and id <= reached
          and (e.tenant is null or tenant = e.tenant)
          and (e.kind = 'tenant' and tenant = e.value or subject = e.value or jsonb_path_exists(before, anywhere, it)
               or jsonb_path_exists(after, anywhere, it) or jsonb_path_exists(details, anywhere, it));
    get diagnostics blanked = row_count;
    counts := jsonb_build_object('audit blanked', blanked);
end $$;

-- One step in the phase that an erasure is in: how far it came, what it did, whether the phase has more, and what it has to
-- wait for. What died while events were looked at has its dead letter looked at afterwards: its event may be pruned by then.
create function outbox.erase_step(e outbox.erasures, batch integer, out more boolean, out place_seq bigint, out place_id uuid,
                                  out counts jsonb, out waits timestamptz, out undelivered bigint) language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    one record;
begin
    more := false;
    case e.phase
        when 'close' then
            counts := outbox.add_counts(outbox.erase_names(e), outbox.erase_others(e));
        when 'dead_letters', 'late_dead_letters' then
            select * into one from outbox.erase_dead_letters(e, batch);
            more := one.reached is not null;
            place_id := one.reached;
            counts := one.counts;
        when 'events' then
            select * into one from outbox.erase_events(e, batch);
            more := one.reached is not null;
            place_seq := one.reached;
            counts := one.counts;
            waits := one.waits;
            undelivered := one.undelivered;
        when 'attempts' then
            if e.kind <> 'tenant' then
                select * into one from outbox.erase_echoes(e, batch);
                more := one.reached is not null;
                place_seq := one.reached;
                counts := one.counts;
            end if;
        when 'subscriptions' then
            if e.kind = 'tenant' then
                select * into one from outbox.erase_subscription(e, batch);
                more := one.reached is not null;
                place_seq := one.reached;
                counts := one.counts;
            end if;
        when 'audit' then
            select * into one from outbox.erase_audit(e, batch);
            more := one.reached is not null;
            place_id := one.reached;
            counts := one.counts;
            if not more then  -- what came meanwhile
                counts := outbox.add_counts(coalesce(counts, '{}'), outbox.erase_others(e));
            end if;
        when 'end' then
    end case;
end $$;

-- Takes the next step of the oldest erasure that runs, in bounded time; returns true while there is more to do at once. Its
-- caller commits, and tries again later where a lock was not to be had (55P03). What is on its way to an endpoint is waited
-- for: its answer would come to be kept after the last look.
create function outbox.erase_next(batch integer default 1000, wanted uuid default null) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms'
    set enable_seqscan = off set jit = off as $$
declare
    following constant jsonb := '{"close": "dead_letters", "dead_letters": "events", "events": "late_dead_letters",
                                  "late_dead_letters": "attempts", "attempts": "subscriptions",
                                  "subscriptions": "audit", "audit": "end"}';
    e outbox.erasures;
    step record;
begin
    select * into e from outbox.erasures
        where state = 'running' and (wanted is null or id = wanted) and (waits_until is null or waits_until <= clock_timestamp())
        order by id limit 1 for update skip locked;
    if not found then
        return false;
    end if;
    update outbox.erasures set xid = pg_current_xact_id(), waits_until = null where id = e.id;
    if exists (select from outbox.uncounted_leaves) then  -- statistics still read the attempts of before page by page
        update outbox.erasures set waits_until = clock_timestamp() + interval '5 s' where id = e.id;
        return false;
    end if;
    begin
        select * into step from outbox.erase_step(e, batch);
    exception
        when lock_not_available or deadlock_detected or serialization_failure then
            raise;
        when others then  -- it must not stand in the way of others; the message may hold what is to be erased
            update outbox.erasures set state = 'blocked', last_error = format('phase %s failed with SQLSTATE %s', e.phase, sqlstate)
                where id = e.id;
            return false;
    end;
    if step.waits is not null then
        update outbox.erasures set waits_until = least(step.waits, clock_timestamp() + interval '5 s') where id = e.id;
        return false;
    elsif step.undelivered > 0 then
        update outbox.erasures set state = 'blocked', last_error = format(
            '%s deliveries or pending events are undelivered; let them be cancelled, or wait and resume', step.undelivered)
            where id = e.id;
        return false;
    elsif e.phase = 'end' then
        update outbox.erasures set state = 'done' where id = e.id;
        return false;
    end if;
    update outbox.erasures set
        counts = outbox.add_counts(e.counts, coalesce(step.counts, '{}')),
        phase = case when step.more then e.phase else following ->> e.phase end,
        after_seq = case when step.more then coalesce(step.place_seq, e.after_seq) else -1 end,
        after_id = case when step.more then coalesce(step.place_id, e.after_id)
                        else '00000000-0000-0000-0000-000000000000' end
        where id = e.id;
    return true;
end $$;

-- The audit is append-only to everybody but an erasure, and retention: both run as the owner, in a function of this schema.
create or replace function outbox.refuse_change() returns trigger language plpgsql as $$
begin
    if current_user operator(pg_catalog.=) (select pg_catalog.pg_get_userbyid(c.relowner) from pg_catalog.pg_class c
                                            where c.oid operator(pg_catalog.=) tg_relid) then
        if tg_op operator(pg_catalog.=) 'UPDATE' and exists (
                select from outbox.erasures where xid operator(pg_catalog.=) pg_catalog.pg_current_xact_id()) then
            return null;
        elsif tg_op operator(pg_catalog.=) 'DELETE'
                and pg_catalog.current_setting('outbox.prunes_audit', true) operator(pg_catalog.=) 'on' then
            return null;
        end if;
    end if;
    raise 'outbox.audit is append-only: % is refused', tg_op using errcode = 'feature_not_supported';
end $$;

-- A dead letter that an erasure deletes is told by the erasure.
do $$
declare
    was constant text := pg_get_functiondef('outbox.audit_dead_letter()'::regprocedure);
    becomes constant text := replace(was, 'if exists (select from outbox.bulk_operations where',
        'if exists (select from outbox.erasures where state = ''running'' and xid = pg_current_xact_id())
            or exists (select from outbox.bulk_operations where');
begin
    if was = becomes then
        raise 'audit_dead_letter is not the function that is known';
    end if;
    execute becomes;
end $$;

-- Retention of dead letters and of the audit, for those who want it: by default both stay.
create function outbox.prune_dead_letters(older_than timestamptz, batch integer) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    gone bigint;
begin
    older_than := outbox.retention_bound(older_than);
    with old as (
        select delivery_id from outbox.dead_letters where died_at < older_than order by died_at limit batch
        for update skip locked),
    deleted as (
        delete from outbox.dead_letters where delivery_id = any (array(select delivery_id from old)) returning 1)
    select count(*) into gone from deleted;
    if gone > 0 then
        insert into outbox.audit (action, details)
            values ('purged', jsonb_build_object('count', gone, 'reason', 'retention', 'until', outbox.utc(older_than)));
    end if;
    return gone;
end $$;

-- A month of it is always there: whoever may prune could otherwise take back what was done yesterday.
create function outbox.prune_audit(older_than timestamptz, batch integer) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    gone bigint;
begin
    perform set_config('outbox.prunes_audit', 'on', true);
    delete from outbox.audit where id = any (array(
        select id from outbox.audit
        where at < least(outbox.retention_bound(older_than), clock_timestamp() - interval '30 days') order by at limit batch));
    get diagnostics gone = row_count;
    perform set_config('outbox.prunes_audit', '', true);
    return gone;
end $$;

-- What is kept for a shorter time of a tenant: events that are done, what endpoints answered, and dead letters. null: as of
-- all. attempts are not deleted, they are the record of what was done; what was answered is blanked.
create table outbox.tenant_retention (
    tenant text collate "C" primary key,
    events_days integer,
    attempts_days integer,
    dead_letters_days integer,
    attempts_reached timestamptz not null default '0001-01-01Z',
    checked_at timestamptz,
    constraint tenant_is_text check (octet_length(tenant) <= 256 and tenant <> '*'),
    constraint days_in_range check (least(events_days, attempts_days, dead_letters_days) >= 1
                                    and greatest(events_days, attempts_days, dead_letters_days) <= 36500),
    constraint something_is_set check (coalesce(events_days, attempts_days, dead_letters_days) is not null),
    constraint times_are_dates check (
        least(attempts_reached, checked_at) >= '0001-01-01Z' and greatest(attempts_reached, checked_at) < '10000-01-01Z')
);
create index tenant_retention_events on outbox.tenant_retention (events_days) where events_days is not null;
-- How far events were looked through for all tenants that keep them for so many days: below `reached` there is nothing of
-- theirs. `passing` is how far a pass is, and `kept` the first event in it that has something undelivered.
create table outbox.tenant_retention_passes (
    events_days integer primary key,
    reached bigint not null default -1,
    passing bigint not null default -1,
    kept bigint,
    checked_at timestamptz,
    constraint checked_at_is_a_date check (checked_at >= '0001-01-01Z' and checked_at < '10000-01-01Z')
);

create function outbox.note_tenant_retention() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    hidden constant text[] := '{tenant,attempts_reached,checked_at}';
begin
    if tg_op = 'UPDATE' and new.tenant <> old.tenant then
        raise 'outbox.tenant_retention: it stays with its tenant; delete it and insert another'
            using errcode = 'feature_not_supported';
    end if;
    if tg_op <> 'UPDATE' or to_jsonb(new) - hidden <> to_jsonb(old) - hidden then
        insert into outbox.audit (action, subject, tenant, before, after)
            values (case tg_op when 'DELETE' then 'tenant retention removed' else 'tenant retention set' end,
                    coalesce(new.tenant, old.tenant), coalesce(new.tenant, old.tenant),
                    case when tg_op <> 'INSERT' then to_jsonb(old) - hidden end,
                    case when tg_op <> 'DELETE' then to_jsonb(new) - hidden end);
        if tg_op <> 'DELETE' and new.events_days is not null then
            insert into outbox.tenant_retention_passes (events_days) values (new.events_days)
                on conflict (events_days) do update set reached = -1, passing = -1, kept = null, checked_at = null;
        end if;
    end if;
    return null;
end $$;
create trigger note after insert or update or delete on outbox.tenant_retention
    for each row execute function outbox.note_tenant_retention();
create trigger audit_truncate after truncate on outbox.tenant_retention
    for each statement execute function outbox.audit_truncate();

-- One step over events for tenants that keep them for a shorter time; returns true while there is more to do. A pass ends
-- where nothing is old enough, and begins again after an hour, at the first event that it had to keep.
create function outbox.prune_tenant_events(batch integer) returns boolean language plpgsql security definer
    set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    one outbox.tenant_retention_passes;
    older_than timestamptz;
    last bigint;
    old bigint[];
    done bigint[];
begin
    perform outbox.begin_retention();
    select p.* into one from outbox.tenant_retention_passes p
        where (checked_at is null or checked_at < clock_timestamp() - interval '1 hour')
          and exists (select from outbox.tenant_retention r where r.events_days = p.events_days)
        order by events_days limit 1 for update skip locked;
    if not found then
        return false;
    end if;
    older_than := outbox.retention_bound(clock_timestamp() - make_interval(days => one.events_days));
    execute 'select max(seq) filter (where recorded_at < $2),
                    array_agg(seq) filter (where recorded_at < $2 and exists (
                        select from outbox.tenant_retention r where r.tenant = n.tenant collate "C" and r.events_days = $4))
             from (select seq, tenant, recorded_at from outbox.events where seq > $1 order by seq limit $3) n'
        into last, old using one.passing, older_than, batch, one.events_days;
    if last is null then
        update outbox.tenant_retention_passes set reached = coalesce(kept - 1, passing), passing = coalesce(kept - 1, passing),
            kept = null, checked_at = clock_timestamp() where events_days = one.events_days;
        return true;
    end if;
    if old is not null then
        execute 'select array_agg(seq) from (select seq from outbox.events e where seq = any ($1)
                     and not exists (select from outbox.pending where event_seq = e.seq)
                     and not exists (select from outbox.deliveries where event_seq = e.seq)
                     for update skip locked) locked' into done using old;
        execute 'delete from outbox.events e where seq = any ($1)
                     and not exists (select from outbox.pending where event_seq = e.seq)
                     and not exists (select from outbox.deliveries where event_seq = e.seq)' using done;
    end if;
    update outbox.tenant_retention_passes set passing = last, kept = coalesce(kept, (
        select min(seq) from unnest(old) seq where seq <> all (coalesce(done, '{}')))) where events_days = one.events_days;
    return true;
end $$;

-- One step over what endpoints answered, an hour of it or `batch` answers, and over dead letters, of one tenant that keeps
-- them for a shorter time; returns true while there is more to do.
create function outbox.prune_tenant(batch integer) returns boolean language plpgsql security definer
    set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    one outbox.tenant_retention;
    bound timestamptz;
    since timestamptz;
    until timestamptz;
    dead bigint := 0;
begin
    select * into one from outbox.tenant_retention
        where checked_at is null or checked_at < clock_timestamp() - interval '1 hour' order by tenant limit 1
        for update skip locked;
    if not found then
        return false;
    end if;
    if one.attempts_days is not null then
        bound := outbox.retention_bound(clock_timestamp() - make_interval(days => one.attempts_days));
        since := one.attempts_reached;
        if since < '1970-01-01Z' then
            since := least(bound, (select min(at) from only outbox.attempts_default),
                           (select min(from_value::timestamptz) from outbox.leaves_of('outbox.attempts')));
        end if;
        until := least(bound, since + interval '1 hour');
        until := coalesce((
            select greatest(at, since + interval '1 microsecond') from outbox.attempts
            where subscription_id = any (array(select id from outbox.subscriptions s where s.tenant = one.tenant))
              and at >= since and at < until order by at offset batch limit 1), until);
        perform outbox.blank_attempts_of(array(select id from outbox.subscriptions s where s.tenant = one.tenant), since, until);
    end if;
    if one.dead_letters_days is not null then
        with deleted as (
            delete from outbox.dead_letters where delivery_id = any (array(
                select delivery_id from outbox.dead_letters
                where tenant = one.tenant and died_at < outbox.retention_bound(
                    clock_timestamp() - make_interval(days => one.dead_letters_days))
                order by died_at limit batch for update skip locked)) returning 1)
        select count(*) into dead from deleted;
        if dead > 0 then
            insert into outbox.audit (action, tenant, details)
                values ('purged', one.tenant, jsonb_build_object('count', dead, 'reason', 'retention'));
        end if;
    end if;
    update outbox.tenant_retention set attempts_reached = coalesce(until, attempts_reached),
        checked_at = case when until < bound or dead >= batch then checked_at else clock_timestamp() end
        where tenant = one.tenant;
    return true;
end $$;
set local lock_timeout to default;
