"""Celery's settings of a deployment. Addresses come from the environment or `.env`."""

from kombu.transport import TRANSPORT_ALIASES

from lowtide import sentinel
from lowtide.settings import load

_settings = load()
_redis = _settings.redis_url or "redis://localhost:6379/0"
_DAY = 86_400.0

broker_url = _settings.broker_url or _redis
result_backend = _settings.result_backend or _redis
broker_connection_retry_on_startup = True
_behind_sentinel: dict[str, object] = {}
if broker_url.startswith(sentinel.SCHEME):
    broker_url, _behind_sentinel = sentinel.parse(broker_url).celery()
    # By the scheme: with the next sentinel's address kombu forgets a transport that was set.
    TRANSPORT_ALIASES["sentinel"] = "lowtide.broker:SentinelTransport"
if result_backend.startswith(sentinel.SCHEME):
    result_backend, result_backend_transport_options = sentinel.parse(result_backend).celery()

if broker_url.startswith("amqp"):
    # Replicated queues; topic exchanges, because countdowns wait in the broker only with these.
    task_default_queue_type = task_create_missing_queue_type = "quorum"
    task_default_exchange = "lowtide-tasks"
    task_default_exchange_type = task_create_missing_queue_exchange_type = "topic"
    # A message counts as sent when the broker has it on disk.
    broker_transport_options: dict[str, object] = {"confirm_publish": True}
    # With quorum queues a worker cannot ask for more while it collects; so it asks for it before.
    worker_prefetch_multiplier = 64
else:
    if not _behind_sentinel:
        # A worker that is killed while it takes a message leaves it to another.
        broker_transport = "lowtide.broker:Transport"
    broker_transport_options = {
        # What a killed worker had taken is given to another after this. A step that takes longer
        # is given out twice, which its lease makes harmless.
        "visibility_timeout": 120,
        # Each look for such messages counts; kombu's own every tenth comes after minutes.
        "unacked_restore_throttle": 1,
        # A worker that dies while it looks keeps the others from it no longer than this.
        "unacked_mutex_expire": 30,
        **_behind_sentinel,
    }

accept_content = ["json"]
task_serializer = "json"
result_serializer = "json"
result_extended = True
# A batch takes up to a day and a chord waits for its slowest member: Celery's one day is too short.
result_expires = 7 * _DAY
result_chord_expires = _settings.state_ttl

worker_send_task_events = True
task_send_sent_event = True
worker_log_format = "%(levelname)s %(name)s: %(message)s"
worker_task_log_format = "%(levelname)s %(task_name)s[%(task_id)s]: %(message)s"
