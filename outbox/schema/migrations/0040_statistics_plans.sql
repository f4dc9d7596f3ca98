-- An hour or a day of the statistics is closed in time that grows with what it has. A quiet night, or the first hours of a new
-- table, leave the planner with the belief that there is one row; then it compared each of ten thousand sums with each
-- histogram and each failure: minutes of CPU, every hour.
-- The statistics of each subscription of a tenant are read by an index; they were looked for among those of all tenants.
-- least code: 27
set local lock_timeout = '5s';

alter function outbox.close_rollups(integer, integer, name, timestamptz) set enable_nestloop = off;

-- What adds up to everything from `since` on, each attempt once: rows of outbox.rollups, of the largest bucket up to
-- `largest` seconds that fits, and what is not counted yet. Those that are null ask for all. `typed` false: type is only
-- right where it is asked for. The bounds are constants of the statement, so that it is planned for them.
create or replace function outbox.rollup_parts(of_scope text, of_subscription uuid, of_tenant text, of_type text,
                                    since timestamptz, largest integer, typed boolean)
    returns table (start timestamptz, subscription_id uuid, tenant text, type text, delivered bigint, failed bigint,
                   dead bigint, cancelled bigint, milliseconds bigint, buckets smallint[], counts bigint[], last_delivered_at timestamptz,
                   last_failed_at timestamptz, last_failed_delivery uuid, last_outcome text, last_status smallint)
    language plpgsql stable rows 1000 set search_path = pg_catalog, pg_temp set jit = off as $$
declare
    origin constant timestamptz := '2000-01-01Z';
    state outbox.rollup_state;
    hours timestamptz;  -- hours from here on are read from their own rows
    days timestamptz;
    begin_hour timestamptz := date_bin('1 hour', since + interval '1 hour' - interval '1 microsecond', origin);
    begin_day timestamptz := date_bin('1 day', since + interval '1 day' - interval '1 microsecond', origin);
    spans text;
    chosen text := '';
    live text := '';
    types text := '';
begin
    select * into state from outbox.rollup_state;
    hours := case when largest >= 3600 then least(begin_hour, greatest(state.hour_until, since)) else 'infinity' end;
    days := case when largest >= 86400 and begin_day < state.day_until then begin_day else 'infinity' end;
    spans := format('(seconds = 60 and (start >= %L and start < %L or start >= %L))', since, hours,
                    case when largest >= 3600 then greatest(state.hour_until, since) else 'infinity' end);
    if hours < state.hour_until then
        spans := spans || case when days < 'infinity' then
            format(' or (seconds = 3600 and (start >= %L and start < %L or start >= %L and start < %L))
                     or (seconds = 86400 and start >= %L and start < %L)',
                   hours, days, greatest(state.day_until, hours), state.hour_until, days, state.day_until)
            else format(' or (seconds = 3600 and start >= %L and start < %L)', hours, state.hour_until) end;
    end if;
    if of_subscription is not null then
        chosen := format(' and subscription_id = %L', of_subscription);
        live := live || format(' and u.subscription_id = %L', of_subscription);
    elsif of_scope in ('all', 'type', 'tenant') then
        chosen := ' and subscription_id = ''00000000-0000-0000-0000-000000000000''';
    elsif of_tenant is not null then  -- the index begins with them: those of all tenants were read
        chosen := format(' and subscription_id = any (array(select id from outbox.subscriptions where tenant = %L))', of_tenant);
    end if;
    if of_tenant is not null then
        chosen := chosen || format(' and tenant = %L', of_tenant);
        live := live || format(' and coalesce(s.tenant, t.tenant, '''') = %L', of_tenant);
    elsif of_scope in ('all', 'type') then
        chosen := chosen || ' and tenant = ''''';
    end if;
    if of_type is not null then
        chosen := chosen || format(' and type = %L', of_type);
        live := live || format(' and t.type = %L', of_type);
    end if;
    if of_scope = 'subscription' then
        live := live || ' and u.subscription_id is not null';
    end if;
    -- Only where it matters, and only those events: this part is most of what a busy minute costs.
    if typed or of_type is not null or of_scope = 'tenant' then
        types := format('select seq, type, tenant from outbox.events where seq = any (array(
                             select event_seq from outbox.uncounted_attempts()%s))',
                        case when of_subscription is not null
                             then format(' where subscription_id = %L', of_subscription) else '' end);
    else
        types := 'select null::bigint as seq, '''' as type, '''' as tenant where false';
    end if;
    return query execute format('
        select start, subscription_id, tenant, type, delivered, failed, dead, cancelled, milliseconds, buckets, counts,
               last_delivered_at, last_failed_at, last_failed_delivery, last_outcome, last_status
        from outbox.rollups where scope = %L and (%s)%s
        union all
        select start, subscription_id, tenant, type, case when bucket is null then 0 else n end, failed, dead, cancelled, milliseconds,
               case when bucket is null then ''{}'' else array[bucket::smallint] end,
               case when bucket is null then ''{}'' else array[n] end, delivered_at,
               failure[1]::timestamp at time zone ''UTC'', failure[2]::uuid, failure[3], failure[4]::smallint
        from (
            select date_bin(''1 minute'', u.at, ''2000-01-01Z'') as start, u.subscription_id,
                   coalesce(s.tenant, t.tenant, '''') as tenant, coalesce(t.type, '''') as type,
                   case when u.verdict is null then width_bucket(u.milliseconds, outbox.latency_bounds()) end as bucket,
                   count(*) as n,
                   count(*) filter (where u.verdict in (''retry'', ''dead'')) as failed,
                   count(*) filter (where u.verdict = ''buried'') as dead,
                   count(*) filter (where u.verdict = ''cancelled'') as cancelled,
                   coalesce(sum(u.milliseconds) filter (where u.verdict is null), 0) as milliseconds,
                   max(u.at) filter (where u.verdict is null) as delivered_at,
                   max(array[to_char(u.at at time zone ''UTC'', ''YYYY-MM-DD HH24:MI:SS.US''), u.delivery_id::text, u.outcome,
                             u.status::text]) filter (where u.verdict in (''retry'', ''dead'')) as failure
            from outbox.uncounted_attempts() u left join outbox.subscriptions s on s.id = u.subscription_id
            left join (%s) t on t.seq = u.event_seq
            where u.at >= %L%s
            group by 1, 2, 3, 4, 5) live',
        of_scope, spans, chosen, types, since, live);
end $$;
