#!/bin/bash
# Whether Valkey takes commands: it does not while it reads its append-only file. The password goes
# over the socket, so that no process's arguments show it.
set -eu
exec 3<>/dev/tcp/127.0.0.1/6379
printf 'AUTH %s\r\nPING\r\n' "$VALKEY_PASSWORD" >&3
read -r -t 3 _ <&3
read -r -t 3 answer <&3
[ "${answer%$'\r'}" = +PONG ]
