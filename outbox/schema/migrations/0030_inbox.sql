-- The inbox: what the application of this database received from others. The id of each message that was taken, in the
-- transaction that acted upon it, so that a copy is known; and a row for each request, also a refused one.
-- least code: 27
set local lock_timeout = '5s';

-- One row for a request. body: its beginning as the application chose, size: its whole length. unrecorded: so many refused
-- requests of the same process before this one have no row. Written by the functions below only.
create table outbox.inbox (
    id uuid not null default outbox.uuid7(),
    at timestamptz not null default clock_timestamp(),
    tenant text collate "C" not null default '',
    source text collate "C" not null,
    message_id text collate "C",
    scheme text,
    sent_at timestamptz,
    method text,
    path text,
    headers text not null default '[]',
    size bigint not null,
    body bytea,
    outcome text collate "C" not null,
    reason text,
    status smallint,
    milliseconds integer,
    entity text collate "C",
    error text,
    unrecorded bigint not null default 0,
    primary key (id, at),
    constraint outcome_is_known check (outcome in ('accepted', 'duplicate', 'refused', 'failed')),
    constraint tenant_is_text check (octet_length(tenant) <= 256 and tenant <> '*'),
    constraint source_is_a_word check (source ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    constraint message_id_is_short check (octet_length(message_id) between 1 and 256),
    constraint texts_are_short check (octet_length(path) <= 2000 and octet_length(headers) <= 32768
        and octet_length(error) <= 4000 and octet_length(entity) <= 256
        and octet_length(concat(scheme, method, reason)) <= 400),
    constraint body_is_bounded check (octet_length(body) <= 1048576 and size >= 0),
    constraint status_is_http check (status between 100 and 999),
    constraint at_is_a_date check (at >= '0001-01-01Z' and at < '10000-01-01Z'
        and sent_at >= '0001-01-01Z' and sent_at < '10000-01-01Z')
) partition by range (at);
create table outbox.inbox_default partition of outbox.inbox default;
create index inbox_at on outbox.inbox (at, id);
create index inbox_message on outbox.inbox (message_id, at);
create index inbox_source on outbox.inbox (source, at);
create index inbox_not_accepted on outbox.inbox (outcome, at) where outcome <> 'accepted';
create index inbox_entity on outbox.inbox (entity, at) where entity is not null;

-- No leaves by day here: an index of a leaf sees the ids of its own days only, and a copy may come on any later one.
create table outbox.inbox_ids (
    tenant text collate "C" not null,
    source text collate "C" not null,
    message_id text collate "C" not null,
    received_at timestamptz not null default clock_timestamp(),
    copies smallint not null default 0,
    primary key (message_id, source, tenant),
    constraint received_at_is_a_date check (received_at >= '0001-01-01Z' and received_at < '10000-01-01Z')
) with (autovacuum_vacuum_scale_factor = 0.02);
create index inbox_ids_received_at on outbox.inbox_ids (received_at);

-- How long both are kept. The check is extended as it stands.
do $$
declare
    was text;
    becomes text;
begin
    select pg_get_constraintdef(oid) into was from pg_constraint
        where conrelid = 'outbox.settings'::regclass and conname = 'setting_is_known';
    becomes := replace(was, 'ELSE false', $more$
        when 'inbox_days' then value between 1 and 3650
        else false$more$);
    if becomes = was then
        raise 'the settings'' check is not the one that is known';
    end if;
    execute 'alter table outbox.settings drop constraint setting_is_known, add constraint setting_is_known ' || becomes;
end $$;
insert into outbox.settings (name, value) values ('inbox_days', 14);

create function outbox.inbox_add(message jsonb, body bytea, outcome text) returns timestamptz language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    added timestamptz;
begin
    insert into outbox.inbox (id, tenant, source, message_id, scheme, sent_at, method, path, headers, size, body, outcome,
                              reason, status, milliseconds, entity, error, unrecorded)
        select coalesce(m.id, outbox.uuid7()), coalesce(m.tenant, ''), m.source, m.message_id, m.scheme,
               to_timestamp(m.sent_at), m.method, m.path, coalesce(m.headers, '[]'), m.size, inbox_add.body,
               inbox_add.outcome, m.reason, m.status, m.milliseconds, m.entity, m.error, coalesce(m.unrecorded, 0)
        from jsonb_to_record(message) m(id uuid, tenant text, source text, message_id text, scheme text, sent_at bigint,
                                        method text, path text, headers text, size bigint, reason text, status smallint,
                                        milliseconds integer, entity text, error text, unrecorded bigint)
        returning at into added;
    return added;
end $$;

-- Takes a verified message in the caller's transaction, with its row: accepted, or duplicate where its id is taken. While
-- another open transaction has the id, it waits for its end, for 5 s at most; then it is busy, and nothing was written.
-- Whoever waits for a transaction that rolls back has the message. Of a copy no body is kept: the first one's is. After 20
-- copies of a message there are no more rows, and `at` is null: whoever has recorded a request may repeat it for ever.
create function outbox.inbox_receive(message jsonb, body bytea, out outcome text, out at timestamptz)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
begin
    begin
        insert into outbox.inbox_ids (tenant, source, message_id)
            values (coalesce(message ->> 'tenant', ''), message ->> 'source', message ->> 'message_id')
            on conflict do nothing;
        outcome := case when found then 'accepted' else 'duplicate' end;
        if outcome = 'duplicate' then
            update outbox.inbox_ids i set copies = i.copies + 1
                where i.message_id = message ->> 'message_id' and i.source = message ->> 'source'
                  and i.tenant = coalesce(message ->> 'tenant', '') and i.copies < 20;
            if not found then
                return;
            end if;
        end if;
    exception when lock_not_available then
        outcome := 'busy';
        return;
    end;
    at := outbox.inbox_add(message, case outcome when 'accepted' then body end, outcome);
end $$;

-- What was answered to a received message, in the same transaction, once. The leaf is known when it is planned.
create function outbox.inbox_answer(id uuid, at timestamptz, status integer, milliseconds integer, entity text)
    returns boolean language plpgsql security definer
    set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' as $$
declare
    found_one bigint;
begin
    execute format('update outbox.inbox set status = $1, milliseconds = $2, entity = $3
                    where id = %L and at = %L and status is null and outcome in (''accepted'', ''duplicate'')', id, at)
        using status::smallint, milliseconds, entity;
    get diagnostics found_one = row_count;
    return found_one > 0;
end $$;

-- The row of a request that was refused, or failed; in a transaction of its own, since nothing else is committed.
create function outbox.inbox_note(message jsonb, body bytea, outcome text) returns timestamptz
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
begin
    if outcome not in ('refused', 'failed') then
        raise 'inbox_note: % is noted by inbox_receive', outcome using errcode = 'invalid_parameter_value';
    end if;
    return outbox.inbox_add(message, body, outcome);
end $$;

-- Makes the first missing leaf among today and the days ahead (UTC), skipping a day that has rows in the default leaf.
create function outbox.make_inbox_leaf(ahead_days integer default 7, today date default null)
    returns text language plpgsql security definer
    set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set lock_timeout = '50ms' as $$
declare
    begin_day date := coalesce(today, clock_timestamp()::date);
    covered timestamptz[] := array(select from_value::timestamptz from outbox.leaves_of('outbox.inbox'));
    wanted timestamptz[] := array(select d from generate_series(begin_day::timestamptz, begin_day + ahead_days, '1 day') d
                                  where d <> all (covered) order by d);
    day timestamptz;
    leaf text;
begin
    if wanted = '{}' or not outbox.try_turn('leaves') then
        return null;
    end if;
    lock table outbox.inbox_default in access exclusive mode;
    foreach day in array wanted loop
        leaf := 'inbox_' || to_char(day, 'YYYYMMDD');
        if to_regclass('outbox.' || leaf) is null and not exists (
                select from outbox.inbox_default where at >= day and at < day + interval '1 day') then
            perform outbox.attach_leaf('outbox.inbox', leaf, 'at', day::text, (day + interval '1 day')::text);
            return 'outbox.' || leaf;
        end if;
    end loop;
    return null;
end $$;

-- Forgets what is older than inbox_days: up to `batch` ids and rows of the default leaf, then one leaf, which is emptied by
-- itself and dropped in a later call, in a moment when nobody holds the table. Says how many rows or leaves; 0 at the end.
create function outbox.prune_inbox(batch integer default 2000) returns bigint language plpgsql security definer
    set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set lock_timeout = '50ms' as $$
declare
    since constant timestamptz := outbox.retention_bound(
        clock_timestamp() - make_interval(days => outbox.setting('inbox_days')::integer));
    leaf regclass;
    gone bigint;
    rows_gone bigint;
begin
    delete from outbox.inbox_ids where ctid = any (array(
        select ctid from outbox.inbox_ids where received_at < since order by received_at limit batch for update skip locked));
    get diagnostics gone = row_count;
    delete from only outbox.inbox_default where ctid = any (array(
        select ctid from only outbox.inbox_default where at < since limit batch));
    get diagnostics rows_gone = row_count;
    if gone + rows_gone > 0 then
        return gone + rows_gone;
    end if;
    select l.leaf into leaf from outbox.leaves_of('outbox.inbox') l
        where l.to_value::timestamptz <= since order by pg_relation_size(l.leaf) = 0, l.to_value::timestamptz limit 1;
    if pg_relation_size(leaf) > 0 then
        execute format('truncate table %s', leaf);
        return 1;
    elsif leaf is not null then
        execute format('lock table only outbox.inbox, only outbox.inbox_default, only %s in access exclusive mode nowait',
                       leaf);
        execute format('drop table %s', leaf);
        return 1;
    end if;
    return 0;
end $$;

-- Both directions in one list: each attempt of a delivery, and each request that was received. `type` of what came in is
-- its source; `entity` is the key of an event, or what the application named.
create view outbox.v_messages as
    select 'out'::text collate "C" as direction, a.at, outbox.text_id('dlv', a.delivery_id) as id, e.tenant, e.type,
           e.key as entity, outbox.text_id('evt', e.id) as message_id,
           case a.verdict when 'delivered' then 'delivered' else a.outcome end as outcome,
           a.status, a.milliseconds, a.error
    from outbox.attempts a left join outbox.events e on e.seq = a.event_seq
    union all
    select 'in', i.at, outbox.text_id('inb', i.id), i.tenant, i.source, i.entity, i.message_id, i.outcome,
           i.status, i.milliseconds, coalesce(i.error, i.reason)
    from outbox.inbox i;

-- Erasure. A text as JSON may write it without a character beyond ASCII: \uXXXX for each, in small letters or capital ones.
create function outbox.json_escaped(value text, capital boolean) returns text language sql immutable strict parallel safe
begin atomic
    select string_agg(case
        when number < 128 then c
        when number < 65536 then '\u' || case when capital then upper(lpad(to_hex(number), 4, '0'))
                                              else lpad(to_hex(number), 4, '0') end
        when capital then '\u' || upper(to_hex(55296 + (number - 65536) / 1024))
                          || '\u' || upper(to_hex(56320 + (number - 65536) % 1024))
        else '\u' || to_hex(55296 + (number - 65536) / 1024) || '\u' || to_hex(56320 + (number - 65536) % 1024) end,
        '' order by place)
    from (select c, ascii(c) as number, place
          from regexp_split_to_table(substring(to_json(value)::text from 2 for length(to_json(value)::text) - 2), '')
               with ordinality as split(c, place)) characters;
end;

-- A tenant's rows and ids; of a key the rows of that entity; of a person every row that holds the text: in the kept body,
-- as it stands, as JSON or as a form writes it, or in any other column, such as an error that quotes it.
create function outbox.erase_inbox(e outbox.erasures) returns bigint language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    of_form constant text := (
        select string_agg(case when c ~ '[A-Za-z0-9*._-]' then c when c = ' ' then '+'
                               else regexp_replace(upper(encode(convert_to(c, 'UTF8'), 'hex')), '(..)', '%\1', 'g') end,
                          '' order by place)
        from regexp_split_to_table(e.value, '') with ordinality split(c, place));
    texts constant text[] := array[e.value, outbox.json_escaped(e.value, false), outbox.json_escaped(e.value, true),
                                   of_form, replace(of_form, '+', '%20')];
    gone bigint;
begin
    delete from outbox.inbox i where case e.kind
        when 'tenant' then i.tenant = e.value
        when 'key' then i.entity = e.value and (e.tenant is null or i.tenant = e.tenant)
        else e.value <> '' and (e.tenant is null or i.tenant = e.tenant)
             and exists (select from unnest(texts) form where position(convert_to(form, 'UTF8') in i.body) > 0
                         or position(form in concat_ws(E'\n', i.error, i.entity, i.message_id, i.path, i.headers)) > 0) end;
    get diagnostics gone = row_count;
    if e.kind = 'tenant' then
        delete from outbox.inbox_ids where tenant = e.value;
    end if;
    return gone;
end $$;

-- What is done to a received request by a command is noted by its id.
do $$
declare
    was constant text := pg_get_functiondef('outbox.audit_operation(text, text, text, jsonb)'::regprocedure);
    becomes text := replace(was, '(sub|dlv|evt)_', '(sub|dlv|evt|inb)_');
begin
    if becomes = was then
        raise 'audit_operation is not the function that is known';
    end if;
    execute becomes;
end $$;

-- One more thing that an erasure covers, whatever else it does by now.
do $$
declare
    was constant text := pg_get_functiondef('outbox.erase_others(outbox.erasures)'::regprocedure);
    becomes text := replace(was, 'return jsonb_build_object(',
        'return jsonb_build_object(''received requests deleted'', outbox.erase_inbox(e)) || jsonb_build_object(');
begin
    if becomes = was then
        raise 'erase_others is not the function that is known';
    end if;
    execute becomes;
end $$;
set local lock_timeout to default;
