#!/bin/sh
# Makes the random passwords of a deployment in .secrets/run/, one file each; what is there stays.
# The outer folder is open to its owner alone, the inner one to the users inside the containers.
set -eu
cd "$(dirname "$0")/.."
umask 077
mkdir -p .secrets
umask 022
mkdir -p .secrets/run
made=
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
for name in valkey_password postgres_password rabbitmq_password lowtide_web_token \
  flower_basic_auth grafana_password; do
  file=.secrets/run/$name
  [ -s "$file" ] && continue
  case $name in
    flower_basic_auth) printf 'lowtide:%s\n' "$(random)" ;;
    *) printf '%s\n' "$(random)" ;;
  esac >"$file"
  made="$made $name"
done
echo "Secrets in .secrets/run/:${made:- all were there}."
