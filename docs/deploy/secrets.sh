#!/bin/sh
# Makes the secrets that compose.yaml names, where they are not there yet: a password for each role, and the address with it.
#     docs/deploy/secrets.sh
# The containers' users have to read the files; the directory keeps everybody else out.
set -eu

cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
for role in postgres shop_owner shop shop_relay shop_serve; do
    [ ! -e "secrets/${role}_password" ] || continue
    password=$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n')
    printf '%s' "postgresql://$role:$password@postgres/shop" >"secrets/${role}_url"
    printf '%s' "$password" >"secrets/${role}_password"
done
chmod 644 secrets/*
