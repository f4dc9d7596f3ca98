-- An attempt whose time ended while the relay's own process stood still says nothing of its endpoint: it is not charged, and
-- statistics count it no more than a test message. In the history it stays. What was counted before stays counted.
-- least code: 27
create or replace function outbox.note_uncounted() returns trigger language plpgsql security definer as $$
begin
    insert into outbox.uncounted (ats, subscription_ids, event_seqs, milliseconds, verdicts, outcomes, statuses, delivery_ids)
        select pg_catalog.array_agg(at), pg_catalog.array_agg(subscription_id), pg_catalog.array_agg(event_seq),
               pg_catalog.array_agg(milliseconds),
               pg_catalog.array_agg(case when verdict operator(pg_catalog.<>) 'delivered' then verdict end),
               pg_catalog.array_agg(case when verdict operator(pg_catalog.<>) 'delivered' then outcome end),
               pg_catalog.array_agg(case when verdict operator(pg_catalog.<>) 'delivered' then status end),
               pg_catalog.array_agg(delivery_id)
        from inserted
        where verdict operator(pg_catalog.<>) 'test' and outcome operator(pg_catalog.<>) 'stood_still'
        having pg_catalog.count(*) operator(pg_catalog.>) 0;
    return null;
end $$;
