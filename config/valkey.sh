#!/bin/sh
# Starts Valkey with config/valkey.conf and the password in VALKEY_PASSWORD, which no argument shows.
set -eu
umask 022
{
  cat /etc/lowtide/valkey.conf
  printf 'requirepass "%s"\n' "$VALKEY_PASSWORD"
} >/run/lowtide/valkey.conf
# The official image's entrypoint leaves root before it starts the server.
if command -v docker-entrypoint.sh >/dev/null; then
  exec docker-entrypoint.sh valkey-server /run/lowtide/valkey.conf
fi
exec valkey-server /run/lowtide/valkey.conf
