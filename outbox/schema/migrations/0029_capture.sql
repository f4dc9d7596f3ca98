-- Capture of tables in SQL: one trigger function for every table, told by its argument what to record.
-- Only functions are new: code of before goes on.
-- least code: 27

-- The queries of a row, given as $1, for a value that jsonb does not take but json does: an escaped NUL, half of a surrogate
-- pair, 1e999999. Values of types that may hold such a one are compared as text; as they are, json_object_agg takes them.
create function outbox.row_images_query(relation oid) returns text language sql stable strict
begin atomic
    select format('select jsonb_object_agg(name, value) from (values %s) given(name, value)', string_agg(
        format('(%L, to_jsonb(($1).%I%s))', a.attname, a.attname,
               case when t.typcategory in ('A', 'C', 'U') and t.oid not in ('uuid'::regtype, 'jsonb'::regtype)
                    then '::text' else '' end), ', '))
    from pg_attribute a join pg_type t on t.oid = a.atttypid
    where a.attrelid = relation and a.attnum > 0 and not a.attisdropped;
end;
create function outbox.row_data_query(relation oid, columns jsonb) returns text language sql stable strict
begin atomic
    select format('select json_object_agg(name, value) from (values (null, null::json)%s) given(name, value) where name is not null',
                  string_agg(format(', (%L, to_json(($1).%I))', attname, attname), '' order by attnum))
    from pg_attribute where attrelid = relation and attnum > 0 and not attisdropped and columns ? attname::text;
end;

-- For `create trigger … after insert or update or delete on … for each row execute function outbox.capture_row('{…}')`,
-- which `relay capture install` writes. The argument is a JSON object:
--   created, updated, deleted  types of events, each may be missing
--   became                     {"column": {"value as text": "type"}}
--   key                        columns whose values as text, with commas between, are the event's key
--   tenant                     the column that names the tenant, never null; without it the tenant is ''
--   columns                    the columns that count, and that the data has; without it all
-- It runs as whoever writes the row, who has to be allowed to record events.
create function outbox.capture_row() returns trigger language plpgsql
    set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
    set extra_float_digits = 1 set bytea_output = 'hex' as $$
declare
    asked constant jsonb := tg_argv[0];
    shown jsonb := asked -> 'columns';
    virtual text[];
    tenant text := '';
    was jsonb;
    is_now jsonb;
    is_odd boolean := false;
    kept jsonb;
    data json;
    types text[];
begin
    if tg_op = 'UPDATE' and old *= new then
        return null;
    end if;
    begin
        if tg_op <> 'INSERT' then
            was := to_jsonb(old);
        end if;
        if tg_op <> 'DELETE' then
            is_now := to_jsonb(new);
        end if;
    exception when data_exception or program_limit_exceeded then
        is_odd := true;
        if tg_op <> 'INSERT' then
            execute outbox.row_images_query(tg_relid) into was using old;
        end if;
        if tg_op <> 'DELETE' then
            execute outbox.row_images_query(tg_relid) into is_now using new;
        end if;
    end;
    if tg_op = 'DELETE' then
        kept := was;
        data := row_to_json(old);
        types := array[asked ->> 'deleted'];
    else
        kept := is_now;
        data := row_to_json(new);
        if tg_op = 'INSERT' then
            types := array[asked ->> 'created'];
        elsif (shown is null and was <> is_now)
              or exists (select from jsonb_array_elements_text(shown) c(name)
                         where was -> name is distinct from is_now -> name) then
            types := array[asked ->> 'updated'];
        end if;
        if asked ? 'became' then
            types := types || array(
                select of_value ->> (is_now ->> name)
                from json_each(tg_argv[0]::json -> 'became') with ordinality wanted(name, of_value, place)
                where tg_op = 'INSERT' or was -> name is distinct from is_now -> name order by place);
        end if;
    end if;
    types := array_remove(types, null);
    if coalesce(types, '{}') = '{}' then
        return null;
    end if;
    -- A trigger gets null for each virtual generated column: it would be sent. Rows without a null have none.
    if kept @? '$.* ? (@ == null)' then
        virtual := array(select attname::text from pg_attribute
                         where attrelid = tg_relid and attnum > 0 and attgenerated = 'v');
        if virtual <> '{}' then
            shown := coalesce(shown, to_jsonb(array(select jsonb_object_keys(kept)))) - virtual;
            kept := kept - virtual;
        end if;
    end if;
    -- A column that was dropped since, or is virtual now: an event without its tenant or key would be somebody else's.
    if exists (select from jsonb_array_elements_text(asked -> 'key' || coalesce(asked -> 'tenant', '[]'::jsonb)) c(name)
               where not kept ? name) then
        raise 'trigger % captures %.%: a column of its key or tenant is gone or virtual',
            tg_name, tg_table_schema, tg_table_name using errcode = 'undefined_column', hint = 'Install it anew: relay capture install.';
    end if;
    if asked ? 'tenant' then
        tenant := kept ->> (asked ->> 'tenant');
        if tenant is null then
            raise 'trigger % captures %.%: its tenant column % is null',
                tg_name, tg_table_schema, tg_table_name, asked ->> 'tenant' using errcode = 'not_null_violation',
                hint = 'Each row of a table that is captured for tenants needs one: set the column not null.';
        end if;
    end if;
    if shown is not null and is_odd and tg_op = 'DELETE' then
        execute outbox.row_data_query(tg_relid, shown) into data using old;
    elsif shown is not null and is_odd then
        execute outbox.row_data_query(tg_relid, shown) into data using new;
    elsif shown is not null then
        data := (select json_object_agg(given.key, given.value order by given.place)
                 from json_each(data) with ordinality given(key, value, place) where shown ? given.key);
    end if;
    perform outbox.record(one.type, coalesce(data, '{}'),
                          key => (select string_agg(kept ->> c.name, ',' order by c.place)
                                  from jsonb_array_elements_text(asked -> 'key') with ordinality c(name, place)),
                          tenant => tenant)
        from unnest(types) with ordinality one(type, place) order by one.place;
    return null;
end $$;
