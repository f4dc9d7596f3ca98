-- Tokens of the HTTP API, and what its callers asked for once.
set local lock_timeout = '5s';

-- hash is SHA-256 of the token, which holds 256 random bits: nothing is gained by a slow hash, and a look-up by its index
-- tells nothing about a token. tenant null: every tenant's. A token is never deleted, so that the audit can be read.
create table outbox.tokens (
    id uuid primary key default outbox.uuid7(),
    name text not null,
    hash bytea not null unique,
    tenant text collate "C",
    rights text[] not null,
    created_by text not null default '',
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    constraint name_is_short check (octet_length(name) between 1 and 200),
    constraint hash_is_sha256 check (octet_length(hash) = 32),
    constraint tenant_is_text check (octet_length(tenant) <= 256 and tenant <> '*'),
    constraint rights_are_known check (cardinality(rights) > 0 and array_position(rights, null) is null
                                       and rights <@ '{read,write,operate,admin}'),
    constraint times_are_dates check (
        least(created_at, expires_at, last_used_at, revoked_at) >= '0001-01-01Z'
        and greatest(created_at, expires_at, last_used_at, revoked_at) < '10000-01-01Z')
) with (fillfactor = 80);

-- Who made it is never what somebody wrote there. When a token was used is no change of it.
create function outbox.note_token() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    hidden constant text[] := '{hash,last_used_at}';
    was constant jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) - hidden || jsonb_build_object(
        'created_at', outbox.utc(old.created_at), 'expires_at', outbox.utc(old.expires_at),
        'revoked_at', outbox.utc(old.revoked_at)) end;
    became jsonb;
begin
    if tg_op = 'INSERT' then
        new.created_by := outbox.actor();
    end if;
    became := case when tg_op <> 'DELETE' then to_jsonb(new) - hidden || jsonb_build_object(
        'created_at', outbox.utc(new.created_at), 'expires_at', outbox.utc(new.expires_at),
        'revoked_at', outbox.utc(new.revoked_at)) end;
    if tg_op = 'UPDATE' and was = became and old.hash = new.hash then
        return new;
    end if;
    insert into outbox.audit (action, subject, tenant, before, after)
        values (case when tg_op = 'INSERT' then 'token added' when tg_op = 'DELETE' then 'token removed'
                     when old.revoked_at is null and new.revoked_at is not null then 'token revoked'
                     else 'token updated' end,
                outbox.text_id('tok', coalesce(new.id, old.id)), coalesce(new.tenant, old.tenant, ''),
                was - 'id'::text, became - 'id'::text);
    return coalesce(new, old);
end $$;
create trigger note before insert or update or delete on outbox.tokens
    for each row execute function outbox.note_token();
create trigger audit_truncate after truncate on outbox.tokens
    for each statement execute function outbox.audit_truncate();

-- What a request with an Idempotency-Key was answered. answer is sealed to the caller's own token and key, neither of
-- which is here: it may hold a signing secret. Rows are forgotten after a day.
create table outbox.api_requests (
    token_id uuid not null,
    key_hash bytea not null,
    request_hash bytea not null,
    answer bytea,
    at timestamptz not null default clock_timestamp(),
    primary key (token_id, key_hash),
    constraint hashes_are_sha256 check (octet_length(key_hash) = 32 and octet_length(request_hash) = 32),
    constraint answer_is_bounded check (octet_length(answer) <= 1048576),
    constraint at_is_a_date check (at >= '0001-01-01Z' and at < '10000-01-01Z')
);
create index api_requests_at on outbox.api_requests (at);
set local lock_timeout to default;
