-- Erasure and retention of a tenant: what was set up again after it was asked for stays, no batch is empty, one locked row
-- stops no other erasure, and the receipt counts what was cancelled while something was being sent.
-- least code: 27
set local lock_timeout = '5s';


-- As before, but one that lives was set up again since the erasure closed the tenant's: neither it nor what it has to send
-- goes. And each delivery of a removed one leaves an attempt `cancelled` as its record.
create or replace function outbox.erase_subscription(e outbox.erasures, batch integer, out reached bigint, out counts jsonb)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    microsecond constant interval := '1 microsecond';
    whose uuid := (
        select id from outbox.subscriptions where tenant = e.value and removed_at is not null order by id limit 1 for update);
    since constant timestamptz := 'epoch'::timestamptz + (e.after_seq + 1) * microsecond;
    until timestamptz;
    number bigint;
begin
    if whose is null then
        return;
    end if;
    select max(at) + microsecond into until from (
        select at from outbox.attempts where subscription_id = whose and at >= since order by at limit batch) next_ones;
    if until is not null then
        reached := (extract(epoch from until) * 1000000)::bigint - 1;
        counts := jsonb_build_object('attempts blanked', outbox.blank_attempts_of(array[whose], since, until));
        return;
    end if;
    with gone as (
        delete from outbox.deliveries where id = any (array(
            select id from outbox.deliveries where subscription_id = whose order by due_at, id limit batch))
        returning id, event_seq, subscription_id, attempts)
    insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, milliseconds)
        select id, event_seq, subscription_id, attempts, 'cancelled', 'cancelled', 0 from gone;
    get diagnostics number = row_count;
    reached := e.after_seq;
    counts := jsonb_build_object('deliveries and pending cancelled', number);
    if number < batch then
        delete from outbox.subscriptions where id = whose;
        reached := -1;
        counts := counts || jsonb_build_object('subscriptions deleted', 1);
    end if;
end $$;

set local lock_timeout to default;
