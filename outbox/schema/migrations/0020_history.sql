-- History by time, and test messages that are asked for in the database.
set local lock_timeout = '5s';

-- Attempts by time; those that failed by time, and of one subscription. A success pays for the first of them only: it
-- grows at its end. Results wait while these are built, about three seconds for each million attempts.
create index attempts_at on outbox.attempts (at);
create index attempts_failed on outbox.attempts (at) where outcome <> 'delivered';
create index attempts_failed_subscription on outbox.attempts (subscription_id, at) where outcome <> 'delivered';

-- A test message that somebody wants to be sent. Any running relay takes it, once, before expires_at, sends it and
-- writes the answer: JSON, as outbox.control.test_requests reads it. Housekeeping deletes it a day later; the attempt
-- stays in the history.
create table outbox.test_requests (
    id uuid primary key default outbox.uuid7(),
    subscription_id uuid not null,
    type text not null,
    payload text not null,
    requested_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null default clock_timestamp() + interval '1 minute',
    taken_at timestamptz,
    answered_at timestamptz,
    answer text,
    constraint type_is_dotted_words check (octet_length(type) <= 128 and type ~ '^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$'),
    constraint payload_is_json check (payload::json is not null),
    constraint answered_with_an_answer check ((answered_at is null) = (answer is null)),
    constraint answer_is_json check (answer is null or answer::json is not null),
    constraint answers_have_dates check (least(taken_at, answered_at) >= '0001-01-01Z'
                                         and greatest(taken_at, answered_at) < '10000-01-01Z'),
    constraint requested_at_is_a_date check (requested_at >= '0001-01-01Z' and requested_at < '10000-01-01Z'),
    constraint expires_at_is_a_date check (expires_at >= '0001-01-01Z' and expires_at < '10000-01-01Z')
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
create index test_requests_open on outbox.test_requests (requested_at) where taken_at is null;
create index test_requests_subscription on outbox.test_requests (subscription_id, requested_at);
set local lock_timeout to default;
