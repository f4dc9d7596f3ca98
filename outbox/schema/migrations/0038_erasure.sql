-- Erasure and retention of a tenant: what was set up again after it was asked for stays, no batch is empty, one locked row
-- stops no other erasure, and the receipt counts what was cancelled while something was being sent.
-- least code: 27
set local lock_timeout = '5s';


-- As before, but one that lives was set up again since the erasure closed the tenant's: neither it nor what it has to send
-- goes. And each delivery of a removed one leaves an attempt `cancelled` as its record.
create or replace function outbox.erase_subscription(e outbox.erasures, batch integer, out reached bigint, out counts jsonb)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    microsecond constant interval := '1 microsecond';
    whose uuid := (
        select id from outbox.subscriptions where tenant = e.value and removed_at is not null order by id limit 1 for update);
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
    with gone as (
        delete from outbox.deliveries where id = any (array(
            select id from outbox.deliveries where subscription_id = whose order by due_at, id limit batch))
        returning id, event_seq, subscription_id, attempts)
    insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, milliseconds)
        select id, event_seq, subscription_id, attempts, 'cancelled', 'cancelled', 0 from gone;
    get diagnostics number = row_count;
    reached := e.after_seq;
    counts := jsonb_build_object('deliveries and pending cancelled', number);
    if number < batch then
        delete from outbox.subscriptions where id = whose;
        reached := -1;
        counts := counts || jsonb_build_object('subscriptions deleted', 1);
    end if;
end $$;

-- A step of no rows looks like the end of its phase, or never ends. Null would be all rows at once.
create function outbox.require_batch(batch integer) returns boolean
    language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
begin
    if (batch >= 1) is not true then
        raise 'batch: % is not at least 1', coalesce(batch::text, 'null') using errcode = 'invalid_parameter_value';
    end if;
    return true;
end $$;

-- As before, but what is cancelled while another of them is being sent is counted.
create or replace function outbox.erase_events(e outbox.erasures, batch integer, out reached bigint, out counts jsonb, out waits timestamptz,
                                    out undelivered bigint) language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    seqs bigint[];
    ids uuid[];
    outstanding record;
    attempts bigint;
    keys bigint;
    dead bigint;
    cancelled bigint;
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
    cancelled := outstanding.number - (select count(*) from outbox.deliveries where event_seq = any (seqs));
    counts := jsonb_build_object('deliveries and pending cancelled', cancelled);
    if waits is not null then
        return;  -- for what is being sent; nothing else of these is leased any more
    end if;
    attempts := outbox.blank_attempts(seqs);
    delete from outbox.dead_letters where event_seq = any (seqs);
    get diagnostics dead = row_count;
    delete from outbox.idempotency_keys where event_id = any (ids);
    get diagnostics keys = row_count;
    execute 'delete from outbox.events where seq = any ($1)' using seqs;
    counts := jsonb_build_object('events deleted', cardinality(seqs), 'deliveries and pending cancelled', cancelled,
                                 'attempts blanked', attempts, 'dead letters deleted', dead,
                                 'idempotency keys deleted', keys);
end $$;

-- As before, but one that meets a lock waits for it, as for what is being sent, and those that waited come last: each caller
-- would otherwise take the same one for as long as somebody holds its row.
create or replace function outbox.erase_next(batch integer default 1000, wanted uuid default null) returns boolean
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms'
    set enable_seqscan = off set jit = off as $$
declare
    bounded constant boolean := outbox.require_batch(batch);
    following constant jsonb := '{"close": "dead_letters", "dead_letters": "events", "events": "late_dead_letters",
                                  "late_dead_letters": "attempts", "attempts": "subscriptions",
                                  "subscriptions": "audit", "audit": "end"}';
    e outbox.erasures;
    step record;
begin
    select * into e from outbox.erasures
        where state = 'running' and (wanted is null or id = wanted) and (waits_until is null or waits_until <= clock_timestamp())
        order by waits_until nulls first, id limit 1 for update skip locked;
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
        when lock_not_available then
            update outbox.erasures set waits_until = clock_timestamp() + interval '5 s' where id = e.id;
            return false;
        when deadlock_detected or serialization_failure then
            raise;
        when others then  -- it must not stand in the way of others; the message may hold what is to be erased
            update outbox.erasures set state = 'blocked', last_error = format('phase %s failed with SQLSTATE %s', e.phase, sqlstate)
                where id = e.id;
            return false;
    end;
    if step.waits is not null then
        update outbox.erasures set waits_until = least(step.waits, clock_timestamp() + interval '5 s'),
            counts = outbox.add_counts(e.counts, coalesce(step.counts, '{}')) where id = e.id;
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

-- And each other function of upkeep that takes a batch refuses what is none.
do $$
declare
    one regprocedure;
    was text;
    bounded text;
begin
    for one in select oid from pg_proc where pronamespace = 'outbox'::regnamespace and prosecdef
            and 'batch' = any (proargnames) and proname <> 'erase_next' loop
        was := pg_get_functiondef(one);
        bounded := regexp_replace(was, '\ndeclare\n', E'\ndeclare\n    bounded constant boolean := outbox.require_batch(batch);\n');
        if bounded = was then
            raise 'no declare in %', one;
        end if;
        execute bounded;
    end loop;
end $$;

-- As before, but a pass also comes back to an event that is younger than one with a higher number: numbers are given before
-- times, and not in their order.
create or replace function outbox.prune_tenant_events(batch integer) returns boolean language plpgsql security definer
    set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    bounded constant boolean := outbox.require_batch(batch);
    one outbox.tenant_retention_passes;
    older_than timestamptz;
    last bigint;
    young bigint;
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
    execute 'select max(seq) filter (where old), array_agg(seq) filter (where old and theirs),
                    min(seq) filter (where not old and theirs)
             from (select seq, recorded_at < $2 as old, exists (
                       select from outbox.tenant_retention r where r.tenant = e.tenant collate "C" and r.events_days = $4) as theirs
                   from (select seq, tenant, recorded_at from outbox.events where seq > $1 order by seq limit $3) e) n'
        into last, old, young using one.passing, older_than, batch, one.events_days;
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
    update outbox.tenant_retention_passes set passing = last, kept = coalesce(kept, least(
        (select min(seq) from unnest(old) seq where seq <> all (coalesce(done, '{}'))),
        case when young < last then young end)) where events_days = one.events_days;
    return true;
end $$;

-- As before, but a tenant with a locked attempt is looked at again after a minute, and stands before no other.
create or replace function outbox.prune_tenant(batch integer) returns boolean language plpgsql security definer
    set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    bounded constant boolean := outbox.require_batch(batch);
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
        begin
            perform outbox.blank_attempts_of(
                array(select id from outbox.subscriptions s where s.tenant = one.tenant), since, until);
        exception when lock_not_available then
            update outbox.tenant_retention set checked_at = clock_timestamp() - interval '59 minutes'
                where tenant = one.tenant;
            return true;
        end;
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

-- Whether one of these forms of a text stands in words by itself: no letter, digit or underscore is beside it, except at
-- the end of an escape, as in %20 or \n.
create function outbox.stands_in(forms text[], words text) returns boolean language sql immutable parallel safe
begin atomic
    select exists (
        select from unnest(forms) form where position(form in words) > 0 and words ~ (
            '(?:(?<![[:alnum:]_])|(?<=%[0-9A-Fa-f]{2}|\\[nrtbf]))' || regexp_replace(form, '([^A-Za-z0-9_])', '\\\1', 'g')
            || '(?![[:alnum:]_])'));
end;

-- Whether a received request is about a person. JSON that was kept as a whole is asked at the path, as payloads are; what
-- else was kept is looked through as text, and so is what stands beside the body. A number there is about anything: where
-- the body tells, it alone does; and headers are full of numbers.
create function outbox.received_holds(e outbox.erasures, i outbox.inbox, forms text[]) returns boolean
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    is_number constant boolean := e.value ~ '^-?[0-9]+([.][0-9]+)?$';
    beside constant text := concat_ws(
        E'\n', i.error, i.entity, i.message_id, i.path, case when not is_number then i.headers end);
    kept text;
begin
    if octet_length(i.body) = i.size then
        begin
            return outbox.payload_holds(convert_from(i.body, 'UTF8'), e.path, e.value)
                   or not is_number and outbox.stands_in(forms, beside);
        exception when others then  -- whatever a stranger sent, such as 100,000 brackets: it must block no erasure
            null;
        end;
    end if;
    if outbox.stands_in(forms, beside) then
        return true;
    end if;
    begin
        kept := convert_from(i.body, 'UTF8');
    exception when others then
        kept := encode(i.body, 'escape');
        forms := array(select encode(convert_to(form, 'UTF8'), 'escape') from unnest(forms) form);
    end;
    return outbox.stands_in(forms, kept);
end $$;

-- The received requests that an erasure is about: a tenant's; of a key those of that entity; of a person those that hold the
-- text, as it stands, as JSON or as a form writes it. As the owner: whoever plans an erasure counts them.
create function outbox.received_of(e outbox.erasures) returns table (id uuid, at timestamptz)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    of_form constant text := (
        select string_agg(case when c ~ '[A-Za-z0-9*._-]' then c when c = ' ' then '+'
                               else regexp_replace(upper(encode(convert_to(c, 'UTF8'), 'hex')), '(..)', '%\1', 'g') end,
                          '' order by place)
        from regexp_split_to_table(e.value, '') with ordinality split(c, place));
    forms constant text[] := array[e.value, outbox.json_escaped(e.value, false), outbox.json_escaped(e.value, true),
                                   of_form, replace(of_form, '+', '%20')];
begin
    return query select i.id, i.at from outbox.inbox i where case e.kind
        when 'tenant' then i.tenant = e.value
        when 'key' then i.entity = e.value and (e.tenant is null or i.tenant = e.tenant)
        else e.value <> '' and (e.tenant is null or i.tenant = e.tenant) and outbox.received_holds(e, i, forms) end;
end $$;

create or replace function outbox.erase_inbox(e outbox.erasures) returns bigint language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    gone bigint;
begin
    delete from outbox.inbox i using outbox.received_of(e) r where i.id = r.id and i.at = r.at;
    get diagnostics gone = row_count;
    if e.kind = 'tenant' then
        delete from outbox.inbox_ids where tenant = e.value;
    end if;
    return gone;
end $$;

set local lock_timeout to default;
