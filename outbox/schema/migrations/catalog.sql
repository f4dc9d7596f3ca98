-- The schema as the server's catalog has it, one line an object, for the drift check. Left out: leaves and what hangs
-- on them, not-null constraints (a catalog row from PostgreSQL 18 on), grants, how payloads are compressed, and the
-- body of max_payload_bytes, which a setting writes.
with tables as (
    select c.oid, c.relname, c.relkind, c.reloptions, c.relpersistence, c.relrowsecurity, c.relforcerowsecurity,
           (select i.inhparent::regclass from pg_inherits i where i.inhrelid = c.oid) as parent
    from pg_class c
    where c.relnamespace = 'outbox'::regnamespace and c.relkind in ('r', 'p', 'v', 'm')
      and (not c.relispartition or pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT'))
select 'table ' || relname || case relkind when 'p' then ' partitioned by ' || pg_get_partkeydef(oid)
                                           when 'r' then '' else ' (view)' end
       || coalesce(' with (' || (select string_agg(o, ', ' order by o) from unnest(reloptions) o) || ')', '')
       || coalesce(' default leaf of ' || parent, '') || case when relpersistence = 'u' then ' unlogged' else '' end
       || case when relrowsecurity then ' row security' else '' end || case when relforcerowsecurity then ' forced' else '' end
from tables
union all
select 'column ' || t.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
       || case when a.attnotnull then ' not null' else '' end
       || case when a.attidentity <> '' then ' identity' when a.attgenerated <> '' then ' generated' else '' end
       || coalesce(' default ' || regexp_replace(pg_get_expr(d.adbin, d.adrelid), '\s+', ' ', 'g'), '')
from tables t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
     left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
union all
-- Whether a check was validated depends on the rows that a migration met.
select 'constraint ' || t.relname || '.' || o.conname || ' '
       || regexp_replace(replace(pg_get_constraintdef(o.oid), ' NOT VALID', ''), '\s+', ' ', 'g')
from tables t join pg_constraint o on o.conrelid = t.oid and o.contype <> 'n'
union all
select 'index ' || pg_get_indexdef(i.indexrelid)
from tables t join pg_index i on i.indrelid = t.oid
union all
select 'trigger ' || pg_get_triggerdef(g.oid) || case g.tgenabled when 'O' then '' else ' (' || g.tgenabled::text || ')' end
from tables t join pg_trigger g on g.tgrelid = t.oid and not g.tgisinternal
union all
select 'sequence ' || c.relname || ' ' || format_type(s.seqtypid, null) || ' increment ' || s.seqincrement
from pg_class c join pg_sequence s on s.seqrelid = c.oid where c.relnamespace = 'outbox'::regnamespace
union all
select 'function ' || p.proname || '(' || pg_get_function_arguments(p.oid) || ') '
       || coalesce(pg_get_function_result(p.oid), '') || ' ' || p.provolatile::text || p.proparallel::text
       || case when p.prosecdef then ' definer' else '' end || case when p.proisstrict then ' strict' else '' end
       || coalesce(' set ' || array_to_string(p.proconfig, ', '), '') || ' '
       || case p.proname when 'max_payload_bytes' then 'as set' else md5(coalesce(pg_get_function_sqlbody(p.oid), p.prosrc)) end
from pg_proc p where p.pronamespace = 'outbox'::regnamespace
