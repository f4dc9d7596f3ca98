-- How urgent an event is: 0 as ever, 3 the most. What it means stands in 0011.
set local lock_timeout = '5s';
alter table outbox.events add column priority smallint not null default 0;
set local lock_timeout to default;
