-- Who may do what: run it once by psql as a superuser, in the application's database, before the first `relay migrate`.
--     psql -d shop -f roles.sql
-- It gives no passwords. It may run again, and takes nothing away.
\set ON_ERROR_STOP on
set client_min_messages = warning;

-- The group roles, whose rights `relay migrate` grants; made here, so that the owner of the schema need not make roles.
select format('create role %I nologin', name)
from unnest(array['outbox_app', 'outbox_operator', 'outbox_relay', 'outbox_reader']) name
where not exists (select from pg_roles where rolname = name) \gexec

-- Who logs in: the owner migrates, and nothing else; the application records; the other two are `relay run` and `relay serve`.
select format('create role %I login', name)
from unnest(array['shop_owner', 'shop', 'shop_relay', 'shop_serve']) name
where not exists (select from pg_roles where rolname = name) \gexec

grant create on database :"DBNAME" to shop_owner;
grant outbox_app to shop;
grant outbox_relay to shop_relay;
grant outbox_operator, outbox_app to shop_serve;
-- To see in `relay status` which transactions of other roles stay open.
grant pg_read_all_stats to shop_serve;
