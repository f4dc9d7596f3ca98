-- least code: 27
-- Was anything lost? The events that were resolved between these times and have fewer subscriptions accounted for than
-- matched: none, unless somebody took a delivery away. accounted: subscriptions with a delivery, a final attempt or a dead
-- letter, but those added later, which only a replay can have given the event to. removed: subscriptions that match it,
-- are gone since, and left nothing: their deliveries went with them.
--
-- Only events that are still there: until an event is pruned, its attempts and its resolution are kept. It is one
-- statement, so one snapshot, and has no SET, so that it is planned as part of its caller's query, with the times known.
-- Numbers ascend with time, so each table is read by the range of them; attempts of a day before, for clocks that jump.
create function outbox.reconciliation(since timestamptz, until timestamptz default 'infinity')
    returns table (event text, tenant text, type text, resolved_at timestamptz, matched integer, accounted integer,
                   removed integer, missing integer)
    language sql stable
begin atomic
    with resolved as materialized (
        select distinct on (u.seq) u.seq, u.matched, r.at
        from outbox.resolutions r cross join lateral unnest(r.seqs, r.matches) u(seq, matched)
        where r.at >= reconciliation.since and r.at < reconciliation.until
        order by u.seq, r.at desc),
    bounds as materialized (select min(seq) as low, max(seq) as high from resolved where matched > 0),
    seen as (
        select event_seq, subscription_id from outbox.deliveries
        where event_seq between (select low from bounds) and (select high from bounds)
        union all
        select event_seq, subscription_id from outbox.attempts
        where event_seq between (select low from bounds) and (select high from bounds)
          and at >= reconciliation.since - interval '1 day' and verdict = any ('{delivered,dead,cancelled}')
        union all
        select event_seq, subscription_id from outbox.dead_letters
        where event_seq between (select low from bounds) and (select high from bounds)),
    counted as (
        select r.seq, array_agg(distinct n.subscription_id) as subscriptions
        from resolved r join seen n on n.event_seq = r.seq
        left join outbox.subscriptions s on s.id = n.subscription_id
        where s.created_at is null or s.created_at <= r.at
        group by r.seq),
    short as materialized (
        select r.seq, r.at, r.matched, coalesce(c.subscriptions, '{}') as subscriptions
        from resolved r left join counted c on c.seq = r.seq
        where r.matched > coalesce(cardinality(c.subscriptions), 0)),
    gone as materialized (
        select id, tenant, types, removed_at from outbox.subscriptions where removed_at >= reconciliation.since
        union all
        select outbox.uuid_of(subject), a.tenant, array(select jsonb_array_elements_text(before -> 'types')), at
        from outbox.audit a
        where at >= reconciliation.since and action = 'deleted' and starts_with(subject, 'sub_')),
    judged as materialized (
        select f.*, e.id, e.tenant, e.type,
               (select count(distinct g.id) from gone g
                where g.removed_at >= f.at and g.tenant = any (array[e.tenant, '*'])
                  and g.types && outbox.patterns_of(e.type) and g.id <> all (f.subscriptions))::integer as removed
        from short f
        cross join lateral (select id, tenant, type from outbox.events where seq = f.seq limit 1) e)
    select outbox.text_id('evt', id), j.tenant, j.type, j.at, j.matched, cardinality(subscriptions), j.removed,
           j.matched - cardinality(subscriptions) - j.removed
    from judged j
    where j.matched - cardinality(subscriptions) > j.removed
    order by seq;
end;
