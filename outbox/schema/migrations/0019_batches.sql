-- Batches: several events in one request. The members and the id of a batch stay the same over its retries: both stand
-- in the rows. batch_size tells whether all members are still there; the order is that of event_seq.
set local lock_timeout = '5s';
alter table outbox.subscriptions
    add column batch_events integer,
    add column batch_milliseconds integer not null default 1000,
    add constraint batch_events_in_range check (batch_events between 2 and 1000),
    add constraint batch_milliseconds_in_range check (batch_milliseconds between 0 and 60000),
    add constraint batches_have_no_order check (batch_events is null or not ordered);
alter table outbox.deliveries
    add column batch_id uuid,
    add column batch_size integer;
create index deliveries_batch on outbox.deliveries (batch_id) where batch_id is not null;
set local lock_timeout to default;
