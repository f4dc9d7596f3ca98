-- The health of endpoints (a breaker for each subscription, and the disabling of those that only fail), and the events
-- that tell of it: types under relay., recorded here and by nobody else.
set local lock_timeout = '5s';

-- After it was disabled because it only failed: try one delivery every so many seconds. 0: a person resumes it.
alter table outbox.subscriptions
    add column recovery_seconds integer not null default 0,
    add constraint recovery_in_range check (recovery_seconds = 0 or recovery_seconds between 60 and 604800);

-- A row where failures are noted; an endpoint that answers has none. No foreign key: its look-up would wait for whoever
-- has locked the subscription. What moves by traffic stays out of outbox.subscriptions, whose every change moves a
-- version that relays must read again.
--   failures, successes   attempts that ended since window_from, as far as they were noted
--   failing_since         the first failure since the last success
--   opened_at             nothing but probes is sent while it is set; the next one not before probe_at
--   pause_seconds         from the last failed probe to the next
--   disabled_at           when it was disabled for having only failed
--   late_at               when its oldest due delivery was found late
--   quiet                 all its failures since failing_since were of events about the relay itself: they are told to nobody
create table outbox.health (
    subscription_id uuid primary key,
    failures integer not null default 0,
    successes integer not null default 0,
    window_from timestamptz not null default clock_timestamp(),
    failing_since timestamptz,
    warned_at timestamptz,
    opened_at timestamptz,
    probe_at timestamptz,
    pause_seconds integer,
    disabled_at timestamptz,
    late_at timestamptz,
    quiet boolean not null default false,
    changed_at timestamptz not null default clock_timestamp(),
    constraint counts_from_zero check (failures >= 0 and successes >= 0 and pause_seconds > 0),
    constraint probes_only_when_open check (opened_at is not null or probe_at is null and pause_seconds is null),
    constraint disabled_is_open check (disabled_at is null or opened_at is not null),
    constraint times_are_dates check (
        least(window_from, failing_since, warned_at, opened_at, probe_at, disabled_at, late_at, changed_at) >= '0001-01-01Z'
        and greatest(window_from, failing_since, warned_at, opened_at, probe_at, disabled_at, late_at, changed_at)
            < '10000-01-01Z')
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- More settings. The check is extended as it stands.
do $$
declare
    was text;
    becomes text;
begin
    select pg_get_constraintdef(oid) into was from pg_constraint
        where conrelid = 'outbox.settings'::regclass and conname = 'setting_is_known';
    becomes := replace(was, 'ELSE false', $more$
        when 'breaker_failure_percent' then value between 0 and 100
        when 'breaker_attempts' then value between 1 and 1000000
        when 'breaker_window_seconds' then value between 1 and 86400
        when 'breaker_pause_seconds' then value between 1 and 86400
        when 'breaker_pause_max_seconds' then value between 1 and 86400
        when 'disable_after_seconds' then value between 0 and 31536000
        when 'late_after_seconds' then value between 0 and 31536000
        else false$more$);
    if becomes = was then
        raise 'the settings'' check is not the one that is known';
    end if;
    execute 'alter table outbox.settings drop constraint setting_is_known, add constraint setting_is_known ' || becomes;
end $$;
insert into outbox.settings (name, value) values
    ('breaker_failure_percent', 70), ('breaker_attempts', 10), ('breaker_window_seconds', 60), ('breaker_pause_seconds', 30),
    ('breaker_pause_max_seconds', 300), ('disable_after_seconds', 432000), ('late_after_seconds', 300);

create function outbox.setting(name text) returns bigint language sql stable parallel safe
begin atomic
    select s.value from outbox.settings s where s.name = setting.name;
end;

-- Types under relay. are for the events below. Only a trigger of the schema's owner records one; an event that was
-- recorded before is written again with its own number, by a restore or a replay, and whoever may give a number (no
-- application may) may do that. Raises, since its reason needs a hint.
create function outbox.refuses_type(seq bigint, type text) returns boolean language plpgsql stable parallel safe as $$
begin
    if pg_catalog.pg_trigger_depth() operator(pg_catalog.>) 0 and exists (
            select from pg_catalog.pg_class c where c.oid operator(pg_catalog.=) 'outbox.events'::pg_catalog.regclass
            and pg_catalog.pg_get_userbyid(c.relowner) operator(pg_catalog.=) current_user) then
        return false;
    end if;
    begin
        if pg_catalog.currval('outbox.events_seq') operator(pg_catalog.<>) seq then
            return false;
        end if;
    exception when object_not_in_prerequisite_state then  -- nothing was drawn in this session
        return false;
    end;
    raise 'new row for relation "events" violates check constraint "type_is_not_reserved"'
        using errcode = 'check_violation', schema = 'outbox', table = 'events', constraint = 'type_is_not_reserved',
              hint = 'Types that begin with relay. are for events about the relay itself: begin it with another word.';
end $$;

-- One rule more, the first of them, whatever else they are by now.
do $$
declare
    was text := (select pg_get_functiondef(p.oid) from pg_proc p
                 where p.pronamespace = 'outbox'::regnamespace and p.proname = 'broken_rule');
    becomes text := regexp_replace(was, '\mCASE\M', $rule$CASE
            WHEN starts_with(type, 'relay.') AND outbox.refuses_type(seq, type) THEN 'type_is_not_reserved'$rule$);
begin
    if becomes = was then
        raise 'broken_rule is not the function that is known';
    end if;
    execute becomes;
end $$;

-- `*` is every event of the application. Those of the relay are asked for by relay.*, or a longer pattern.
create or replace function outbox.patterns_of(type text) returns text[] language sql immutable strict parallel safe
begin atomic
    select case when starts_with(type, 'relay.') then array[type] else array['*', type] end || array(
        select array_to_string(words[1:count], '.') || '.*'
        from string_to_array(type, '.') words, generate_series(1, cardinality(words) - 1) count);
end;

-- The host of a URL: what may be told of it, since a path or a password may be a secret.
create function outbox.host_of(url text) returns text language sql immutable strict parallel safe
begin atomic
    select substring(url from '^https?://(?:[^/?#]*@)?(\[[^]]*\]|[^:/?#]*)');
end;

-- Records an event about a subscription, in the transaction of what it tells. A rule that it breaks (max_payload_bytes
-- may be any number) must not keep the result of an attempt from being stored.
create function outbox.tell(type text, id uuid, tenant text, url text, data json) returns void language plpgsql as $$
declare
    name constant pg_catalog.text := outbox.text_id('sub', id);
begin
    insert into outbox.events (type, tenant, key, payload) values (
        tell.type, case when tell.tenant operator(pg_catalog.=) '*' then '' else tell.tenant end, name,
        pg_catalog.format('{"subscription": "%s", "host": %s, %s', name,
                          pg_catalog.to_json(outbox.host_of(tell.url)), pg_catalog.substr(data::pg_catalog.text, 2)));
exception when check_violation then
    raise warning 'outbox: no event % about % is recorded: %', type, name, sqlerrm;
end $$;

create function outbox.tell_of_health() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    it outbox.subscriptions;
begin
    select * into it from outbox.subscriptions s where s.id = new.subscription_id and s.removed_at is null;
    if not found then
        return null;
    end if;
    if tg_op = 'UPDATE' and not new.quiet then
        if old.opened_at is null and new.opened_at is not null and new.disabled_at is null then
            perform outbox.tell('relay.breaker.opened', it.id, it.tenant, it.url, json_build_object(
                'opened_at', outbox.utc(new.opened_at), 'failures', new.failures, 'successes', new.successes,
                'window_seconds', outbox.setting('breaker_window_seconds'),
                'failing_since', outbox.utc(new.failing_since), 'probe_at', outbox.utc(new.probe_at)));
        elsif old.opened_at is not null and new.opened_at is null and old.disabled_at is null then
            perform outbox.tell('relay.breaker.closed', it.id, it.tenant, it.url, json_build_object(
                'opened_at', outbox.utc(old.opened_at), 'closed_at', outbox.utc(new.changed_at), 'by', 'success'));
        end if;
        if old.warned_at is null and new.warned_at is not null and new.disabled_at is null then
            perform outbox.tell('relay.subscription.warned', it.id, it.tenant, it.url, json_build_object(
                'failing_since', outbox.utc(new.failing_since),
                'disable_at', outbox.utc(new.failing_since
                                         + make_interval(secs => outbox.setting('disable_after_seconds')))));
        elsif old.warned_at is not null and new.warned_at is null and old.disabled_at is null then
            perform outbox.tell('relay.subscription.recovered', it.id, it.tenant, it.url, json_build_object(
                'failing_since', outbox.utc(old.failing_since), 'disabled_at', null, 'reason', null, 'by', 'success'));
        end if;
    end if;
    if new.late_at > clock_timestamp() - interval '1 minute' and (tg_op = 'INSERT' or old.late_at is null) then
        perform outbox.tell('relay.backlog.late', it.id, it.tenant, it.url, json_build_object(
            'late_at', outbox.utc(new.late_at),
            'oldest_due_at', (select outbox.utc(min(due_at)) from outbox.deliveries where subscription_id = it.id),
            'late_after_seconds', outbox.setting('late_after_seconds')));
    end if;
    return null;
end $$;
create trigger tell_update after update on outbox.health for each row
    when ((old.opened_at is null) <> (new.opened_at is null) or (old.warned_at is null) <> (new.warned_at is null)
          or old.late_at is null and new.late_at is not null)
    execute function outbox.tell_of_health();
create trigger tell_insert after insert on outbox.health for each row when (new.late_at is not null)
    execute function outbox.tell_of_health();

-- Disabled by a 410, by five days of failures or by a person; enabled again by a person or a success.
create function outbox.tell_of_subscription() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    noted outbox.health;
begin
    select * into noted from outbox.health h where h.subscription_id = new.id;
    if noted.quiet and (noted.disabled_at is not null or old.disabled_at is not null and noted.opened_at is null) then
        return null;
    end if;
    if new.disabled_at is not null then
        perform outbox.tell('relay.subscription.disabled', new.id, new.tenant, new.url, json_build_object(
            'disabled_at', outbox.utc(new.disabled_at), 'reason', new.disabled_reason,
            'failing_since', outbox.utc(noted.failing_since), 'recovery_seconds', new.recovery_seconds));
    else
        perform outbox.tell('relay.subscription.recovered', new.id, new.tenant, new.url, json_build_object(
            'failing_since', outbox.utc(noted.failing_since), 'disabled_at', outbox.utc(old.disabled_at),
            'reason', old.disabled_reason, 'by', case when outbox.is_relay() then 'success' else 'person' end));
    end if;
    return null;
end $$;
create trigger tell after update of disabled_at on outbox.subscriptions for each row
    when ((old.disabled_at is null) <> (new.disabled_at is null) and new.removed_at is null)
    execute function outbox.tell_of_subscription();

-- Who resumes a subscription, or gives it another URL, begins anew with its health: what was noted was about the time
-- before, or about another endpoint. Done when the transaction commits, or a relay that stores a result would wait for
-- a person's transaction.
create function outbox.forget_health() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    gone outbox.health;
begin
    delete from outbox.health h where h.subscription_id = new.id returning * into gone;
    if gone.opened_at is not null and not outbox.is_relay() then
        insert into outbox.audit (action, subject, tenant, before)
            values ('breaker closed', outbox.text_id('sub', new.id), new.tenant, jsonb_build_object(
                'opened_at', outbox.utc(gone.opened_at), 'failing_since', outbox.utc(gone.failing_since)));
        if gone.disabled_at is null and not gone.quiet and new.removed_at is null then
            perform outbox.tell('relay.breaker.closed', new.id, new.tenant, new.url, json_build_object(
                'opened_at', outbox.utc(gone.opened_at), 'closed_at', outbox.utc(clock_timestamp()), 'by', 'person'));
        end if;
    end if;
    return null;
end $$;
create constraint trigger forget_health after update of url, paused_at, disabled_at, held_until on outbox.subscriptions
    deferrable initially deferred for each row
    when (new.url <> old.url or new.paused_at is null and new.disabled_at is null and new.held_until is null)
    execute function outbox.forget_health();

create function outbox.drop_health() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    delete from outbox.health h where h.subscription_id = old.id;
    return null;
end $$;
create trigger drop_health after delete on outbox.subscriptions
    for each row execute function outbox.drop_health();

-- One event for each delivery that died, where somebody has asked for them: the dead letter itself is the record. A
-- storm is bounded: of one subscription, the first ten within a minute are told, and the tenth says that more may follow.
-- Counted in the dead letters themselves: a counter would be a row that all relays wait for.
create function outbox.tell_of_dead_letters() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    one record;
    it outbox.subscriptions;
begin
    for one in
        with fresh as (
            select i.*, row_number() over of_one as place, count(*) over (partition by i.subscription_id) as several
            from inserted i
            where i.subscription_id is not null and not starts_with(i.type, 'relay.')
              and i.died_at > clock_timestamp() - interval '1 minute'
            window of_one as (partition by i.subscription_id order by i.delivery_id))
        select f.*, f.place - f.several + (
                   select count(*) from (select from outbox.dead_letters d where d.subscription_id = f.subscription_id
                                         and d.died_at > clock_timestamp() - interval '1 minute' limit f.several + 10) l)
               as nth
        from fresh f where f.place <= 10 order by f.delivery_id
    loop
        select * into it from outbox.subscriptions s where s.id = one.subscription_id and s.removed_at is null;
        if one.nth <= 10 and found and exists (
                select from outbox.subscription_types t
                where t.tenant = any (array[nullif(it.tenant, '*'), '*'])
                  and t.pattern = any (outbox.patterns_of('relay.delivery.dead')) and t.subscription_id <> it.id) then
            perform outbox.tell('relay.delivery.dead', it.id, it.tenant, it.url, json_build_object(
                'delivery', outbox.text_id('dlv', one.delivery_id), 'event', outbox.text_id('evt', one.event_id),
                'type', one.type, 'attempts', one.attempts, 'reason', one.reason, 'died_at', outbox.utc(one.died_at),
                'more_may_follow', one.nth = 10));
        end if;
    end loop;
    return null;
end $$;
create trigger tell after insert on outbox.dead_letters
    referencing new table as inserted for each statement execute function outbox.tell_of_dead_letters();
set local lock_timeout to default;
