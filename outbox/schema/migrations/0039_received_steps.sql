-- What was received is looked through a batch of rows at a time, for an erasure and for its plan: a million requests took
-- minutes in one statement, longer than the API waits, while nothing could be vacuumed.
-- least code: 27
set local lock_timeout = '5s';

alter table outbox.erasures drop constraint phase_is_known;
alter table outbox.erasures add constraint phase_is_known check (phase in (
    'close', 'dead_letters', 'events', 'late_dead_letters', 'attempts', 'subscriptions', 'audit', 'received', 'end'));

-- Of the next rows of the inbox after a time, those that an erasure is about: a tenant's; of a key those of that entity; of a
-- person those that hold the text, as it stands, as JSON or as a form writes it. `reached` is null where there are no more.
-- Rows of one time go together. As the owner: whoever plans an erasure counts them.
create function outbox.received_of(e outbox.erasures, after timestamptz, look integer, out reached timestamptz, out ids uuid[])
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
    of_form constant text := (
        select string_agg(case when c ~ '[A-Za-z0-9*._-]' then c when c = ' ' then '+'
                               else regexp_replace(upper(encode(convert_to(c, 'UTF8'), 'hex')), '(..)', '%\1', 'g') end,
                          '' order by place)
        from regexp_split_to_table(e.value, '') with ordinality split(c, place));
    forms constant text[] := array[e.value, outbox.json_escaped(e.value, false), outbox.json_escaped(e.value, true),
                                   of_form, replace(of_form, '+', '%20')];
begin
    select max(at) into reached from (select at from outbox.inbox where at > after order by at limit look) next_ones;
    select array_agg(i.id) into ids from outbox.inbox i where i.at > after and i.at <= reached and case e.kind
        when 'tenant' then i.tenant = e.value
        when 'key' then i.entity = e.value and (e.tenant is null or i.tenant = e.tenant)
        else e.value <> '' and (e.tenant is null or i.tenant = e.tenant) and outbox.received_holds(e, i, forms) end;
end $$;

-- One step over what was received; `after_seq` is the time that the last one reached, in microseconds since 1970.
create function outbox.erase_received(e outbox.erasures, batch integer, out reached bigint, out counts jsonb)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    after constant timestamptz := case when e.after_seq < 0 then '-infinity'
        else 'epoch'::timestamptz + e.after_seq * interval '1 microsecond' end;
    one record;
    gone bigint := 0;
begin
    counts := jsonb_build_object('received requests deleted', gone);
    select * into one from outbox.received_of(e, after, batch);
    if one.reached is null then
        if e.kind = 'tenant' then
            delete from outbox.inbox_ids where tenant = e.value;
        end if;
        return;
    end if;
    delete from outbox.inbox where at > after and at <= one.reached and id = any (one.ids);
    get diagnostics gone = row_count;
    reached := greatest(0, (extract(epoch from one.reached) * 1000000)::bigint);
    counts := jsonb_build_object('received requests deleted', gone);
end $$;

do $$
declare
    one record;
    was text;
begin
    for one in select * from (values
        ('outbox.erase_others(outbox.erasures)',
         'jsonb_build_object(''received requests deleted'', outbox.erase_inbox(e)) || ', ''),
        ('outbox.erase_step(outbox.erasures,integer)', '        when ''end'' then',
         '        when ''received'' then
            select * into one from outbox.erase_received(e, batch);
            more := one.reached is not null;
            place_seq := one.reached;
            counts := one.counts;
        when ''end'' then'),
        ('outbox.erase_next(integer,uuid)', '"audit": "end"}', '"audit": "received", "received": "end"}')
    ) of(function, words, become) loop
        was := pg_get_functiondef(one.function::regprocedure);
        if strpos(was, one.words) = 0 then
            raise '% is not the function that is known', one.function;
        end if;
        execute replace(was, one.words, one.become);
    end loop;
end $$;
drop function outbox.erase_inbox(outbox.erasures);
drop function outbox.received_of(outbox.erasures);

set local lock_timeout to default;
