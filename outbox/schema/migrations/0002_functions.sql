-- What SQL users call: text ids in both directions, and record().

-- TypeID: prefix, underscore, the 128 bits in 26 characters of Crockford base32.
create function outbox.text_id(prefix text, id uuid) returns text language sql immutable strict parallel safe
begin atomic
    select prefix || '_' || string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz',
            (substring(b'00'::bit varying || ('x' || replace(id::text, '-', ''))::bit(128)::bit varying
                       from 1 + 5 * place for 5)::bit(5))::integer + 1, 1), '' order by place)
    from generate_series(0, 25) place;
end;

-- The uuid of a TypeID, or of a uuid written out.
create function outbox.uuid_of(id text) returns uuid language sql immutable strict parallel safe
begin atomic
    select case when position('_' in id) = 0 then id::uuid else (
        select encode(string_agg(set_byte('\x00', 0, substring(bits from 3 + 8 * place for 8)::bit(8)::integer), ''::bytea
               order by place), 'hex')::uuid
        from generate_series(0, 15) place,
             (select string_agg(((position(substr(split_part(id, '_', 2), place, 1)
                                    in '0123456789abcdefghjkmnpqrstvwxyz') - 1)::bit(5))::text, '' order by place)::bit varying bits
              from generate_series(1, 26) place) as decoded
    ) end;
end;

-- Record an event in the caller's transaction, from any language: select outbox.record('order.created', '{"id": 7}').
-- The json text is kept as written. Returns the event's id as text, evt_….
create function outbox.record(type text, data json, key text default null, tenant text default '',
                              available_at timestamptz default null) returns text language sql volatile
begin atomic
    insert into outbox.events (type, payload, key, tenant, available_at)
        values (record.type, record.data::text, record.key, record.tenant, record.available_at)
        returning outbox.text_id('evt', id);
end;

-- The patterns that match a type: itself, '*', and each of its prefixes followed by '.*'.
create function outbox.patterns_of(type text) returns text[] language sql immutable strict parallel safe
begin atomic
    select array['*', type] || array(
        select array_to_string(words[1:count], '.') || '.*'
        from string_to_array(type, '.') words, generate_series(1, cardinality(words) - 1) count);
end;

-- The bytes of a delivery's body, built from the stored text without parsing it: the same on every attempt.
create function outbox.body(type text, recorded_at timestamptz, payload text) returns text language sql stable parallel safe
begin atomic
    select '{"type":"' || type || '","timestamp":"'
        || to_char(recorded_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '","data":' || payload || '}';
end;
