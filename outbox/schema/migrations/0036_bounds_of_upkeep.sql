-- What whoever may run upkeep can ask of it has bounds, and what people read of a priority's deliveries leaves its boost out.
-- least code: 27

-- Refuses sizes and days that no relay asks for. Leaves of one row would be made until inserts fail, one that never fills
-- would end the retention of whole leaves, and days that are dropped ahead of time would fill the default leaf. The owner
-- of the schema, who may make and drop any table, is not bound. Null breaks no limit: it is the function's own default.
create function outbox.require_leaf_bounds(ahead integer, leaf_rows bigint, today date, latest date) returns boolean
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if pg_has_role(session_user, (select nspowner from pg_namespace where nspname = 'outbox'), 'member') then
        return true;
    end if;
    if ahead not between 0 and 64 then
        raise 'leaves: % ahead is not between 0 and 64', ahead using errcode = 'invalid_parameter_value';
    elsif leaf_rows not between 100000 and 1000000000 then
        raise 'leaves: % rows are not between 100,000 and 1,000,000,000', leaf_rows
            using errcode = 'invalid_parameter_value';
    elsif today not between clock_timestamp()::date - 400 and latest then
        raise 'leaves: % is not between 400 days ago and %', today, latest using errcode = 'invalid_parameter_value';
    end if;
    return true;
end $$;

-- The functions of upkeep get one line more, before they look at what they were given: the days up to infinity have no end.
do $$
declare
    one record;
    bound text;
begin
    for one in select * from (values
        ('outbox.make_event_leaf(integer, bigint, bigint, interval)', 'ahead, leaf_rows, null, null'),
        ('outbox.make_attempt_leaf(integer, date)', 'ahead_days, null, today, clock_timestamp()::date + 400'),
        ('outbox.make_key_leaf(integer, date)', 'ahead_days, null, today, clock_timestamp()::date + 400'),
        ('outbox.make_inbox_leaf(integer, date)', 'ahead_days, null, today, clock_timestamp()::date + 400'),
        ('outbox.drop_empty_leaf(date)', 'null, null, today, clock_timestamp()::date')) bounded(function, given) loop
        bound := regexp_replace(pg_get_functiondef(one.function::regprocedure), '\ndeclare\n', E'\ndeclare\n'
                                '    bounded constant boolean := outbox.require_leaf_bounds(' || one.given || E');\n');
        if bound !~ 'require_leaf_bounds' then
            raise 'no declare in %', one.function;
        end if;
        execute bound;
    end loop;
end $$;

-- As before, without the boost of a priority, which moves due_at back: an urgent event looked half an hour late.
create or replace view outbox.v_deliveries_by_state as
    select outbox.state_of(due_at, lease) as state, count(*) as deliveries,
           count(*) filter (where attempts > 0) as retries,
           min(due_at + make_interval(secs => coalesce(boost_seconds, 0))) as oldest_due_at
    from outbox.deliveries group by 1
    union all select 'not resolved', count(*), 0, null from outbox.pending having count(*) > 0
    union all select 'dead', count(*), 0, null from outbox.dead_letters having count(*) > 0;

create or replace view outbox.v_backlog as
    select outbox.text_id('sub', d.subscription_id) as subscription_id, s.tenant, outbox.host_of(s.url) as host,
           d.due, d.retries_due, d.waiting, d.parked, d.leased, d.oldest_due_at
    from (select subscription_id, count(*) filter (where state = 'due') as due,
                 count(*) filter (where state = 'due' and attempts > 0) as retries_due,
                 count(*) filter (where state = 'waiting') as waiting, count(*) filter (where state = 'parked') as parked,
                 count(*) filter (where state in ('leased', 'lease ended')) as leased,
                 min(due_since) filter (where state = 'due') as oldest_due_at
          from (select subscription_id, attempts, outbox.state_of(due_at, lease) as state,
                       due_at + make_interval(secs => coalesce(boost_seconds, 0)) as due_since from outbox.deliveries) each
          group by subscription_id) d
    left join outbox.subscriptions s on s.id = d.subscription_id;

do $$
declare
    told constant text := replace(pg_get_functiondef('outbox.tell_of_health()'::regprocedure), 'outbox.utc(min(due_at))',
                                  'outbox.utc(min(due_at + make_interval(secs => coalesce(boost_seconds, 0))))');
begin
    if told !~ 'boost_seconds' then
        raise 'no oldest_due_at in outbox.tell_of_health()';
    end if;
    execute told;
end $$;
