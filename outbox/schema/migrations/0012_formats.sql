-- The shape of a request's body, by subscription, and the one secret that a format may put into it. Only tables that are
-- small are touched, and none is rewritten: the defaults are constants.
set local lock_timeout = '5s';

-- Before version 17 a column with a default cannot be added while a function takes the table's row: it is made again.
do $$
declare
    audited constant text := pg_get_functiondef('outbox.audited(outbox.subscriptions)'::regprocedure);
begin
    drop function outbox.audited(outbox.subscriptions);
    alter table outbox.subscriptions
        add column format text not null default 'standard',
        add column format_settings jsonb not null default '{}',
        add constraint format_is_a_word check (format ~ '^[a-z0-9][a-z0-9-]{0,31}$'),
        add constraint format_settings_is_object check (jsonb_typeof(format_settings) = 'object');
    execute audited;
end $$;

alter table outbox.secrets
    drop constraint kind_is_known,
    add constraint kind_is_known check (kind in ('signing', 'headers', 'authentication', 'tls', 'format_secret'));
