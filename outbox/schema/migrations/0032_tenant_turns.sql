-- Who counts a tenant's subscriptions before adding one takes a turn, so that of several at once each counts what the
-- others added. A row per tenant would have to be made, pruned and erased; two tenants that share one only wait.
-- least code: 27
insert into outbox.turns (name) select 'tenant ' || part from generate_series(0, 63) part;

-- Waits for the turn of this tenant, and has it until the end of the transaction: not for ever, since a process that
-- stopped with it would stop whoever shares it.
create function outbox.hold_tenant(tenant text) returns void language sql security definer
    set search_path = pg_catalog, pg_temp set lock_timeout = '5s'
begin atomic
    select from outbox.turns where name = 'tenant ' || (hashtext(tenant) & 63) for no key update;
end;
