-- Where a database is at home, so that a copy of it (production's dump, restored as staging) sends nothing; and which
-- code may go on beside a newer schema.
set local lock_timeout = '5s';

-- The place in which this schema's events are sent. While any row names another place than outbox.here(), no relay sends:
-- the row came along with a dump. No row: nobody has sent from here yet, and the first relay notes its place.
create table outbox.home (
    place text collate "C" primary key,
    noted_at timestamptz not null default clock_timestamp(),
    constraint noted_at_is_a_date check (noted_at >= '0001-01-01Z' and noted_at < '10000-01-01Z')
);

-- The same on a promoted standby and in a restored backup, another one after a dump was restored in another cluster or
-- under another name. Where the owner may not ask for the system's identifier, the database's own number has to do.
create function outbox.here() returns text language plpgsql stable security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    return format('database %s of system %s', current_database(), (select system_identifier from pg_control_system()));
exception when insufficient_privilege then
    return format('database %s with oid %s', current_database(),
                  (select oid from pg_database where datname = current_database()));
end $$;

create function outbox.is_copied() returns boolean language sql stable
begin atomic
    select exists (select from outbox.home where place <> (select outbox.here()));
end;

-- What a relay asks when it connects: note this place where none is noted yet, and return it.
create function outbox.note_home() returns text language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    insert into outbox.home (place) select outbox.here() where not exists (select from outbox.home)
        on conflict do nothing;
    return outbox.here();
end $$;

-- A person says that this place is the home now. Returns it.
create function outbox.adopt() returns text language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    now_here constant text := outbox.here();
    was text[];
begin
    with gone as (delete from outbox.home where place <> now_here returning place)
    select array_agg(place order by place) into was from gone;
    insert into outbox.home (place) values (now_here) on conflict do nothing;
    if was is not null then
        insert into outbox.audit (action, before, after)
            values ('database adopted', jsonb_build_object('places', was), jsonb_build_object('places', array[now_here]));
    end if;
    return now_here;
end $$;

-- What sends already is at home where it is migrated; a template without rows has no home yet.
insert into outbox.home (place)
    select outbox.here() where exists (select from outbox.events) or exists (select from outbox.subscriptions);

-- The lowest version that code must know to go on beside this migration; null: that of the migration itself.
alter table outbox.schema_migrations
    add column least_code integer,
    add constraint least_code_is_older check (least_code between 1 and version);
set local lock_timeout to default;
