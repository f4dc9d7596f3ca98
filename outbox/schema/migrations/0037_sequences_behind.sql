-- least code: 27
-- As before, but what it executes has the last number in it: the planner then opens only the leaves above. `relay status`
-- and `relay migrate --check`, which ask for it, opened every leaf of events, with its indexes.
create or replace function outbox.sequences_behind(out sequence regclass, out last bigint, out highest bigint)
    returns setof record language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    one record;
begin
    for one in select s.oid::regclass sequence, d.refobjid::regclass owner, a.attname
               from pg_class s
               join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.oid and d.deptype in ('a', 'i')
                                and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0
               join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
               where s.relkind = 'S' and s.relnamespace = 'outbox'::regnamespace loop
        execute format('select case when is_called then last_value else last_value - 1 end from %s', one.sequence) into last;
        execute format('select max(%I) from %s where %1$I > %3$s', one.attname, one.owner, last) into highest;
        if highest > last then
            sequence := one.sequence;
            return next;
        end if;
    end loop;
end $$;
