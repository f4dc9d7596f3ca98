-- Whose turn it is among pending events: each tenant's, and the urgent ones first. A relay that is behind takes some of
-- each (relay/store/fan_out.py), so that nobody waits behind another tenant's backlog. An event that has neither a tenant
-- nor a priority is in no further index, and pays nothing.
--
-- keyed: an event with a key is not taken before older ones while some subscription of its tenant asks for order.
set local lock_timeout = '5s';
alter table outbox.pending
    add column tenant text collate "C" not null default '',
    add column priority smallint not null default 0,
    add column keyed boolean not null default false;
create index pending_in_turn on outbox.pending ((-priority), tenant, event_seq) where tenant <> '' or priority > 0;

create or replace function outbox.mark_pending() returns trigger language plpgsql security definer as $$
begin
    insert into outbox.pending (event_seq, tenant, priority, keyed)
        select seq, tenant, priority, key is not null from inserted;
    return null;
end $$;

-- By how much due_at was moved back for an event's priority; null: not at all. What reports lateness adds it again.
alter table outbox.deliveries add column boost_seconds integer;
set local lock_timeout to default;
