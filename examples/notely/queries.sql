-- What an operator of notely asks. A user's id is the tenant; outbox_reader may run these.

-- name: success rate of 24 hours
select sum(delivered) as successful, sum(delivered + failed) as total,
       round(100.0 * sum(delivered) / nullif(sum(delivered + failed), 0), 1) as success_rate
from outbox.v_statistics_24h;

-- name: size of the retry queue
select count(*) as pending_retries from outbox.deliveries where lease is null and attempts > 0 and due_at <= now();

-- name: ten webhooks that fail most in seven days
select subscription_id, failed as failures from outbox.v_statistics_7d
where failed > 0 order by failed desc limit 10;
