-- Subscriptions that a file declares: a name that stays, who manages them, and of a secret whether it is still the same.
set local lock_timeout = '5s';
alter table outbox.subscriptions
    add column name text,
    add column managed_by text,
    add constraint name_is_a_word check (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    add constraint managed_by_is_a_word check (managed_by ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$');
create unique index subscriptions_name on outbox.subscriptions (tenant, name) where removed_at is null;
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
set local lock_timeout to default;
