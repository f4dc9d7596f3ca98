-- Filters: which events of its types a subscription gets, as JSON text (never jsonb, which rewrites numbers).

-- The first 16 bytes of the text's SHA-256. UTF-8 is the one encoding that is supported, so it is immutable.
create function outbox.filter_hash(filter text) returns uuid language sql immutable strict parallel safe
begin atomic
    select encode(substring(sha256(convert_to(filter, 'UTF8')) for 16), 'hex')::uuid;
end;

-- Relays know a filter by its hash, and compile it once; fan_out moves hashes only.
alter table outbox.subscriptions
    add column filter text,
    add column filter_hash uuid generated always as (outbox.filter_hash(filter)) stored,
    add constraint filter_is_object check (octet_length(filter) <= 16384 and json_typeof(filter::json) = 'object');

-- So that fan_out can pass over those that it knows not to match, without a look at their subscriptions.
alter table outbox.subscription_types add column filter_hash uuid;
create or replace function outbox.keep_subscription_types() returns trigger language plpgsql security definer as $$
begin
    delete from outbox.subscription_types where subscription_id operator(pg_catalog.=) new.id;
    if new.removed_at is null then
        insert into outbox.subscription_types (tenant, pattern, subscription_id, filter_hash)
            select distinct new.tenant, pattern, new.id, new.filter_hash from pg_catalog.unnest(new.types) pattern;
    end if;
    return null;
end $$;
drop trigger keep_subscription_types on outbox.subscriptions;
create trigger keep_subscription_types after insert or update of tenant, types, removed_at, filter
    on outbox.subscriptions for each row execute function outbox.keep_subscription_types();

-- Pairs whose filter came to no result (too much work, a payload that cannot be parsed): they did not match, and can be
-- replayed. Null in nearly every row.
alter table outbox.resolutions
    add column gave_up_seqs bigint[],
    add column gave_up_subscriptions uuid[],
    add constraint pairs_gave_up check (cardinality(gave_up_seqs) = cardinality(gave_up_subscriptions)
                                        and (gave_up_seqs is null) = (gave_up_subscriptions is null)) not valid;
