#!/bin/sh
# What the image of PostgreSQL runs when it makes the database: the roles, and a password for each from its secret.
set -eu

psql -X -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f /roles.sql
for role in shop_owner shop shop_relay shop_serve; do
    # Quoted by psql; nothing of it is in the arguments of a process.
    psql -X -v ON_ERROR_STOP=1 -v role="$role" -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
\set file '/run/secrets/' :role '_password'
\set password `cat :file`
alter role :"role" password :'password';
SQL
done
