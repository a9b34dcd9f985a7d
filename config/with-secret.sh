#!/bin/sh
# with-secret.sh NAME command…: runs a command with the secret NAME in its environment. It is what
# NAME says already, or else what /run/secrets/<name in small letters> holds; `make secrets` makes it.
set -eu
name=$1
shift
eval "value=\${$name:-}"
if [ -z "$value" ]; then
  file=/run/secrets/$(printf %s "$name" | tr '[:upper:]' '[:lower:]')
  if [ ! -r "$file" ]; then
    echo "lowtide: $name is not set: \`make secrets\` makes a random one, or write it into .env." >&2
    exit 1
  fi
  value=$(cat "$file")
fi
export "$name=$value"
exec "$@"
