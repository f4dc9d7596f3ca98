-- PostgreSQL reads a table's rules anew, from their text, for each statement that inserts. That of metadata was long: an eighth
-- of what the server does for an INSERT of one event, also of one without metadata. A function keeps it ready.
-- least code: 27
set local lock_timeout = '5s';

create function outbox.metadata_is_text_by_name(metadata jsonb) returns boolean language plpgsql immutable parallel safe as $$
begin
    return pg_catalog.jsonb_typeof(metadata) operator(pg_catalog.=) 'object'
        and pg_catalog.octet_length(metadata::pg_catalog.text) operator(pg_catalog.<=) 8192
        and not pg_catalog.jsonb_path_exists(metadata, 'strict $.* ? (@.type() <> "string")');
end $$;

-- The rule stays as it was, so no old row is read.
alter table outbox.events
    drop constraint metadata_is_text_by_name,
    add constraint metadata_is_text_by_name check (metadata is null or outbox.metadata_is_text_by_name(metadata)) not valid;
