-- Attempts as whoever only reads may see them: before migration 25 a relay wrote the whole URL, which may be a credential,
-- and such rows stay until their retention is over. Whoever reads by SQL gets rights on this in place of the column.
-- least code: 27
create view outbox.shown_attempts as
    select a.delivery_id, a.event_seq, a.subscription_id, a.number, a.at, a.verdict, a.outcome, a.status, a.milliseconds,
           a.error, outbox.shown_url(a.url, coalesce(
               (select s.format from outbox.subscriptions s where s.id = a.subscription_id), 'standard')) as url,
           a.address, a.headers, a.excerpt
    from outbox.attempts a;
