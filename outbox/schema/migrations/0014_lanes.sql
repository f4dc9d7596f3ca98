-- Order: the deliveries of one key for one ordered subscription are a lane, and go one at a time, in the order of their
-- events. The head of a lane is its one row with a finite due_at; every other is parked at due_at = 'infinity', where no
-- claim comes by.

set local lock_timeout = '5s';
-- sorting_since: since when the backlog of a subscription is put into lanes, because order was switched on. Nothing is
-- sent to it until that is done.
alter table outbox.subscriptions
    add column ordered boolean not null default false,
    add column order_policy text not null default 'block',
    add column sorting_since timestamptz,
    add constraint order_policy_is_known check (order_policy in ('block', 'skip')),
    add constraint sorting_since_is_a_date check (sorting_since >= '0001-01-01Z' and sorting_since < '10000-01-01Z');
create index subscriptions_ordered on outbox.subscriptions (tenant collate "C") where ordered and removed_at is null;
create index subscriptions_sorting on outbox.subscriptions (sorting_since) where sorting_since is not null;

-- lane: 64 bits of hash of the event's tenant and key; null where nothing is in order. Two keys of one hash share a lane,
-- which costs them time and nothing else. not_before: when a parked row may go at the earliest; null is at once.
alter table outbox.deliveries
    add column lane bigint,
    add column not_before timestamptz,
    add constraint not_before_is_a_date check (not_before >= '0001-01-01Z' and not_before < '10000-01-01Z') not valid;
-- That a lane has one head is the rule of whoever writes (relay/store/lanes.py); this index is the alarm.
create unique index deliveries_heads on outbox.deliveries (subscription_id, lane)
    where lane is not null and isfinite(due_at);
create index deliveries_parked on outbox.deliveries (subscription_id, lane, event_seq, id)
    where lane is not null and not isfinite(due_at);
set local lock_timeout to default;

create function outbox.begin_sorting() returns trigger language plpgsql as $$
begin
    new.sorting_since := pg_catalog.clock_timestamp();
    return new;
end $$;
create trigger begin_sorting before update of ordered on outbox.subscriptions
    for each row when (new.ordered and not old.ordered) execute function outbox.begin_sorting();

-- Without rows there is nothing to read.
do $$
begin
    if not exists (select from outbox.deliveries) then
        alter table outbox.deliveries validate constraint not_before_is_a_date;
    end if;
end $$;
