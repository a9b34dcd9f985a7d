"""Flower's settings: `celery -A worker.app flower --conf=config/flower.py`.

Who may look is set by FLOWER_BASIC_AUTH=user:password, where Flower listens by its command line.
"""

from lowtide.settings import load

_home = load().home
_home.mkdir(parents=True, exist_ok=True)

persistent = True
db = str(_home / "flower.db")
state_save_interval = 60_000  # milliseconds
max_tasks = 100_000
purge_offline_workers = 3600  # seconds
natural_time = True
# Batch tasks tell their batch as exchange, their lane as routing key, their place as result.
tasks_columns = "name,uuid,state,args,exchange,routing_key,result,received,runtime,worker"
