-- The event types that applications declare, as they were pushed: what dashboard, portal and API show of a type, and what
-- the next push is compared with. Nothing that records or delivers reads it.
-- least code: 27
set local lock_timeout = '5s';

-- One row for each application that pushes. Patterns of new subscriptions must match a declared type where all are closed.
create table outbox.catalogues (
    name text collate "C" primary key,
    closed boolean not null default false,
    pushed_at timestamptz not null default clock_timestamp(),
    constraint name_is_a_word check (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    constraint pushed_at_is_a_date check (pushed_at >= '0001-01-01Z' and pushed_at < '10000-01-01Z')
);

-- schema and example are JSON text as it was written: jsonb would sort the fields of a schema, which people read. Without
-- a schema the data is any JSON. A type that is declared no more stays as retired, since its events may be there still.
create table outbox.event_types (
    type text collate "C" primary key,
    catalogue text collate "C" not null references outbox.catalogues on delete cascade,
    version integer not null default 1,
    description text not null default '',
    schema text,
    example text,
    deprecated text,
    added_at timestamptz not null default clock_timestamp(),
    changed_at timestamptz not null default clock_timestamp(),
    retired_at timestamptz,
    constraint type_is_dotted_words check (type ~ '^[A-Za-z0-9_]+([.][A-Za-z0-9_]+)*$' and octet_length(type) <= 128),
    constraint type_is_no_operational_one check (not starts_with(type, 'relay.')),
    constraint version_is_positive check (version >= 1),
    constraint texts_are_short check (octet_length(description) <= 8192 and octet_length(deprecated) <= 8192),
    constraint schema_is_an_object check (json_typeof(schema::json) = 'object' and octet_length(schema) <= 262144),
    constraint example_is_json check (json_typeof(example::json) <> '' and octet_length(example) <= 65536),
    constraint times_are_dates check (
        least(added_at, changed_at, retired_at) >= '0001-01-01Z'
        and greatest(added_at, changed_at, retired_at) < '10000-01-01Z')
);
create index event_types_catalogue on outbox.event_types (catalogue);

-- Each change of a type: what differs, before and after. details names the catalogue; what has details is shown to no tenant.
create function outbox.note_event_type() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    hidden constant text[] := '{type,added_at,changed_at}';
    was jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) - hidden
        || jsonb_build_object('retired_at', outbox.utc(old.retired_at)) end;
    became jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) - hidden
        || jsonb_build_object('retired_at', outbox.utc(new.retired_at)) end;
    action constant text := case
        when tg_op = 'INSERT' then 'event type added' when tg_op = 'DELETE' then 'event type removed'
        when old.retired_at is null and new.retired_at is not null then 'event type retired'
        when old.retired_at is not null and new.retired_at is null then 'event type restored'
        else 'event type changed' end;
begin
    if tg_op = 'UPDATE' then
        select jsonb_object_agg(key, value), jsonb_object_agg(key, became -> key) into was, became
            from jsonb_each(was) where value is distinct from became -> key;
        if was is null then
            return null;
        end if;
    end if;
    insert into outbox.audit (action, subject, before, after, details) values (
        action, coalesce(new.type, old.type), was, became,
        jsonb_build_object('catalogue', coalesce(new.catalogue, old.catalogue)));
    return null;
end $$;
create trigger note after insert or update or delete on outbox.event_types
    for each row execute function outbox.note_event_type();

create function outbox.note_catalogue() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op <> 'UPDATE' or old.closed <> new.closed then
        insert into outbox.audit (action, subject, before, after, details) values (
            case tg_op when 'INSERT' then 'catalogue added' when 'DELETE' then 'catalogue removed'
                       else 'catalogue changed' end,
            '', case when tg_op <> 'INSERT' then jsonb_build_object('closed', old.closed) end,
            case when tg_op <> 'DELETE' then jsonb_build_object('closed', new.closed) end,
            jsonb_build_object('catalogue', coalesce(new.name, old.name)));
    end if;
    return null;
end $$;
create trigger note after insert or update or delete on outbox.catalogues
    for each row execute function outbox.note_catalogue();

create trigger audit_truncate after truncate on outbox.catalogues
    for each statement execute function outbox.audit_truncate();
create trigger audit_truncate after truncate on outbox.event_types
    for each statement execute function outbox.audit_truncate();
set local lock_timeout to default;
