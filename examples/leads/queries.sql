-- What an operator of the leads asks.

-- name: queue by status
select state, deliveries from outbox.v_deliveries_by_state;

-- name: activity of 24 hours by direction and type
select direction, type, count(*) as count from outbox.v_messages
where at > now() - interval '24 hours' group by direction, type order by direction, type;

-- name: last failed
select at, type, outcome, status, error from outbox.v_recent_failures limit 20;
