#!/bin/sh
# Starts RabbitMQ with config/rabbitmq.conf and the password in RABBITMQ_PASSWORD.
set -eu
export RABBITMQ_DEFAULT_PASS="$RABBITMQ_PASSWORD" RABBITMQ_CONFIG_FILE=/etc/lowtide/rabbitmq.conf
if command -v docker-entrypoint.sh >/dev/null; then
  exec docker-entrypoint.sh rabbitmq-server
fi
exec rabbitmq-server
