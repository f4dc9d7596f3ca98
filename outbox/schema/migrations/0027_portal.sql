-- Links into the portal of a tenant's own customers, and the session that each begins.
set local lock_timeout = '5s';

-- A link is 256 random bits, of which the SHA-256 is kept: nobody can make one but by a row here, and no key has to be kept
-- or exchanged. It is opened once, before expires_at; the session that it begins then is the same row, so that revoking the
-- link ends both. Rows go a day after their end.
create table outbox.portal_links (
    id uuid primary key default outbox.uuid7(),
    tenant text collate "C" not null,
    rights text not null,
    person text,
    hash bytea not null unique,
    created_by text not null default '',
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    opened_at timestamptz,
    session_hash bytea unique,
    session_expires_at timestamptz,
    revoked_at timestamptz,
    constraint tenant_is_text check (octet_length(tenant) <= 256 and tenant <> '*'),
    constraint rights_are_known check (rights in ('read', 'manage')),
    constraint person_is_short check (octet_length(person) between 1 and 200),
    constraint hashes_are_sha256 check (octet_length(hash) = 32 and octet_length(session_hash) = 32),
    constraint link_ends_soon check (expires_at <= created_at + interval '7 days 1 minute'),
    constraint session_is_whole check ((opened_at is null) = (session_hash is null)
                                       and (opened_at is null) = (session_expires_at is null)),
    constraint times_are_dates check (
        least(created_at, expires_at, opened_at, session_expires_at, revoked_at) >= '0001-01-01Z'
        and greatest(created_at, expires_at, opened_at, session_expires_at, revoked_at) < '10000-01-01Z')
) with (fillfactor = 80);
create index portal_links_tenant on outbox.portal_links (tenant, id);

-- Who made it is never what somebody wrote there. That a row goes after its end is no news.
create function outbox.note_portal_link() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    action text;
begin
    if tg_op = 'INSERT' then
        new.created_by := outbox.actor();
        action := 'portal link added';
    elsif tg_op = 'DELETE' then
        if old.revoked_at is null and coalesce(old.session_expires_at, old.expires_at) > clock_timestamp() then
            action := 'portal link removed';
        end if;
    elsif old.revoked_at is null and new.revoked_at is not null then
        action := 'portal link revoked';
    elsif old.opened_at is null and new.opened_at is not null then
        action := 'portal link opened';
    elsif (to_jsonb(old)) <> (to_jsonb(new)) then
        action := 'portal link updated';
    end if;
    if action is not null then
        insert into outbox.audit (action, subject, tenant, details) values (
            action, outbox.text_id('lnk', coalesce(new.id, old.id)), coalesce(new.tenant, old.tenant),
            jsonb_build_object('rights', coalesce(new.rights, old.rights), 'person', coalesce(new.person, old.person),
                               'expires_at', outbox.utc(coalesce(new.expires_at, old.expires_at))));
    end if;
    return coalesce(new, old);
end $$;
create trigger note before insert or update or delete on outbox.portal_links
    for each row execute function outbox.note_portal_link();
create trigger audit_truncate after truncate on outbox.portal_links
    for each statement execute function outbox.audit_truncate();

-- As before, and a tenant's links.
create or replace function outbox.erase_others(e outbox.erasures) returns jsonb language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    tests bigint;
    tokens bigint := 0;
    links bigint := 0;
    rollups bigint := 0;
begin
    delete from outbox.test_requests t where case when e.kind = 'tenant'
        then exists (select from outbox.subscriptions s where s.id = t.subscription_id and s.tenant = e.value)
        else position(e.value in concat_ws(E'\n', t.payload, t.answer)) > 0 and (e.tenant is null or exists (
            select from outbox.subscriptions s where s.id = t.subscription_id and s.tenant = e.tenant)) end;
    get diagnostics tests = row_count;
    if e.kind = 'tenant' then
        delete from outbox.api_requests r where exists (
            select from outbox.tokens t where t.id = r.token_id and t.tenant = e.value);
        delete from outbox.tokens where tenant = e.value;
        get diagnostics tokens = row_count;
        delete from outbox.portal_links where tenant = e.value;
        get diagnostics links = row_count;
        delete from outbox.rollups where tenant = e.value and scope in ('tenant', 'subscription');
        get diagnostics rollups = row_count;
    end if;
    return jsonb_build_object('test messages deleted', tests, 'tokens deleted', tokens, 'portal links deleted', links,
                              'statistics deleted', rollups);
end $$;
set local lock_timeout to default;
