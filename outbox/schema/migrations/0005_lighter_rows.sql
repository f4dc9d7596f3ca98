-- A lighter INSERT of an event. Every statement reads the CHECKs of its table anew from the catalog, and for a single row
-- that costs more than all else the database does for it: seven CHECKs took half of the INSERT. One function, whose plan
-- a session keeps, holds the same rules under the same names.

-- The rule that an event breaks, by its name; null when it breaks none.
create function outbox.broken_rule(seq bigint, tenant text, type text, key text, payload text, recorded_at timestamptz,
                                   available_at timestamptz) returns text language sql immutable parallel safe
begin atomic
    select case
        when not (octet_length(tenant) <= 256 and tenant <> '*') then 'tenant_is_text'
        when not (octet_length(type) <= 128 and type ~ '^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$') then 'type_is_dotted_words'
        when not octet_length(key) <= 1024 then 'key_is_text'
        when payload::json is null then 'payload_is_json'
        when not seq between 1 and 4611686018427387904 then 'seq_is_drawn'
        when not (recorded_at >= '0001-01-01Z' and recorded_at < '10000-01-01Z') then 'recorded_at_is_a_date'
        when not (available_at >= '0001-01-01Z' and available_at < '10000-01-01Z') then 'available_at_is_a_date'
    end;
end;

-- True, or the error of a CHECK that is named like the broken rule. plpgsql, because a session keeps its plan; what is
-- looked up by name when it runs is qualified.
create function outbox.keeps_rules(seq bigint, tenant text, type text, key text, payload text, recorded_at timestamptz,
                                   available_at timestamptz) returns boolean language plpgsql immutable parallel safe as $$
declare
    broken constant pg_catalog.text := outbox.broken_rule(seq, tenant, type, key, payload, recorded_at, available_at);
begin
    if broken is null then
        return true;
    end if;
    raise 'new row for relation "events" violates check constraint "%"', broken
        using errcode = 'check_violation', schema = 'outbox', table = 'events', constraint = broken;
end $$;

-- Not valid: the rows that are there kept the same rules, and reading them all would stop every INSERT meanwhile. A
-- transaction that is open on events makes this wait, and each INSERT behind it; so it gives up soon.
set local lock_timeout = '5s';
alter table outbox.events
    drop constraint tenant_is_text, drop constraint type_is_dotted_words, drop constraint key_is_text,
    drop constraint payload_is_json, drop constraint seq_is_drawn, drop constraint recorded_at_is_a_date,
    drop constraint available_at_is_a_date,
    add constraint rules_are_kept
        check (outbox.keeps_rules(seq, tenant, type, key, payload, recorded_at, available_at)) not valid;
set local lock_timeout to default;

-- Without rows there is nothing to read. Elsewhere the check stays unvalidated; new rows obey it all the same.
do $$
begin
    if not exists (select from outbox.events) then
        alter table outbox.events validate constraint rules_are_kept;
    end if;
end $$;
