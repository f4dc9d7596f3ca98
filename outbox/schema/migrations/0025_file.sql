-- Subscriptions that a file declares: a name that stays, who manages them, and of a secret whether it is still the same.
set local lock_timeout = '5s';
alter table outbox.subscriptions
    add column name text collate "C",
    add column managed_by text collate "C",
    add constraint name_is_a_word check (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    add constraint managed_by_is_a_word check (managed_by ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$');
create unique index subscriptions_name on outbox.subscriptions (name, tenant collate "C") where removed_at is null;
create index subscriptions_managed_by on outbox.subscriptions (managed_by) where managed_by is not null;

-- A slow salted hash of a secret that a file gave (scrypt, outbox/subscriptions/fingerprints.py): a sealed one cannot be
-- read and compared. Whoever may not read secrets may not read this either, since a weak one could be guessed by it.
alter table outbox.secrets add column fingerprint text;

-- Where a secret's text is another, what was known of the old one says nothing. Sealing it anew changes no secret.
create function outbox.forget_fingerprint() returns trigger language plpgsql as $$
begin
    new.fingerprint := null;
    return new;
end $$;
create trigger forget_fingerprint before update of secret on outbox.secrets for each row
    when (new.secret <> old.secret and not starts_with(new.secret, 'sealed:')
          and new.fingerprint is not distinct from old.fingerprint)
    execute function outbox.forget_fingerprint();

-- An endpoint's URL as it may be shown: outbox/formats/shown_urls.py, in SQL. Many URLs are a credential, or hold one, so
-- whoever only reads sees this column and not url, and the audit keeps it and not url.
create function outbox.looks_secret(value text) returns boolean language sql immutable strict parallel safe
begin atomic
    select value ~* '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
        or value ~ '(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{16}'
        or length(value) >= 20 and value ~ '[0-9].*[0-9].*[0-9]' and value ~ '[A-Z]' and value ~ '[a-z]';
end;
create function outbox.shown_path(path text) returns text language sql immutable strict parallel safe
begin atomic
    select coalesce(string_agg(
        case when segment <> '' and (outbox.looks_secret(segment)
                 or before ~* '^(?:api[-_]?|access[-_]?)?(?:key|token|secret|auth|password)s?$') then '***'
             else segment end, '/' order by place), '')
    from (select segment, place, lag(segment) over (order by place) as before
          from string_to_table(path, '/') with ordinality as parts(segment, place)) parted;
end;
create function outbox.shown_pair(pair text) returns text language sql immutable strict parallel safe
begin atomic
    select case when pair !~ '=' then case when outbox.looks_secret(pair) then '***' else pair end
                when value <> '' and (outbox.looks_secret(value)
                     or name ~* 'auth|code|cred|hmac|jwt|key|pass|pwd|secret|session|sig|token') then name || '=***'
                else pair end
    from (select split_part(pair, '=', 1) as name, substr(pair, strpos(pair, '=') + 1) as value) parted;
end;
create function outbox.shown_query(query text) returns text language sql immutable strict parallel safe
begin atomic
    select left(query, 1) || coalesce(string_agg(outbox.shown_pair(pair[1]) || pair[2], '' order by place), '')
    from regexp_matches(substr(query, 2), '([^&;]*)([&;]|$)', 'g') with ordinality as pairs(pair, place);
end;
-- What may be shown of the path of a service whose URLs are credentials; null of every other host and format.
create function outbox.shown_beginning(host text, format text) returns text language sql immutable strict parallel safe
begin atomic
    select case
        when host ~ '^hooks\.slack(?:-gov)?\.com$' then '^/[a-z]+/'
        when host ~ '^(?:[a-z]+\.)?discord(?:app)?\.com$' then '^/api/(?:v[0-9]+/)?webhooks/[0-9]+/'
        when host ~ '^(?:(?:[a-z0-9.-]+\.)?webhook\.office\.com|outlook\.office(?:365)?\.com)$' then '^/[a-z0-9]+/'
        when host ~ '^(?:[a-z0-9.-]+\.logic\.azure\.(?:com|us)|[a-z0-9.-]+\.powerplatform\.com)$' then '^/[^?]*'
        when host ~ '^hooks\.zapier\.com$' then '^/hooks/[a-z]+/'
        when host ~ '^chat\.googleapis\.com$' then '^/[^?]*'
        when format in ('slack', 'discord', 'teams', 'n8n', 'zapier') then '^/[^/?]+/'
    end;
end;
create function outbox.shown_url(url text, format text) returns text language sql immutable strict parallel safe
begin atomic
    select coalesce(
        part[1] || case when part[2] is null then '' else '***@' end || part[3] || part[4]
        || case when beginning is null then outbox.shown_path(path) || outbox.shown_query(query)
                else kept || case when length(path) > length(kept) then '***' else '' end
                    || case when query = '' then '' else '?***' end end
        || case when part[7] is null then '' else '#***' end, url)
    from (select part, path, query, beginning, coalesce(substring(path from beginning), '/') as kept
          from (select part, coalesce(part[5], '') as path, coalesce(part[6], '') as query,
                       outbox.shown_beginning(lower(part[3]), format) as beginning
                from regexp_match(url, '^([^:/?#]*://)([^/?#]*@)?(\[[^\]/?#]*\]|[^:/?#]*)([^/?#]*)(/[^?#]*)?(\?[^#]*)?(#.*)?$')
                    as part) parted) shown;
end;
alter table outbox.subscriptions add column shown_url text generated always as (outbox.shown_url(url, format)) stored;

create or replace function outbox.audited_subscription(it jsonb) returns jsonb language sql stable
begin atomic
    select (it - '{version,updated_at,filter_hash,sorting_since,shown_url}'::text[])
        || jsonb_build_object('url', it ->> 'shown_url')
        || (select jsonb_object_agg(name, outbox.utc((it ->> name)::timestamptz))
            from unnest('{created_at,paused_at,disabled_at,removed_at,held_until}'::text[]) name);
end;
-- Where only what is hidden of a URL differs, the audit says that it is another one.
create or replace function outbox.audit_subscription() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    was jsonb := outbox.audited_subscription(to_jsonb(old));
    became jsonb := outbox.audited_subscription(to_jsonb(new));
begin
    if to_jsonb(old) ->> 'url' <> new.url and was ->> 'url' = new.shown_url then
        became := became || jsonb_build_object('url', '(another one) ' || new.shown_url);
    end if;
    perform outbox.note_subscription(was, became);
    return null;
end $$;
set local lock_timeout to default;
