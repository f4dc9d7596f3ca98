-- What an operator of the catalogue asks; outbox_reader may run these.

-- name: health of each webhook
select subscription_id, host, delivered_7d as success_count, failed_7d as failure_count, success_percent_7d as success_rate
from outbox.v_subscriptions_health where state = 'active';

-- name: recent failures
select host, type as event, coalesce(error, outcome) as error, at from outbox.v_recent_failures limit 10;

-- name: average response time
select subscription_id, mean as avg_response_time_ms, delivered as total_executions from outbox.v_statistics_7d;
