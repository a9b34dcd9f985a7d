"""Flower's settings: `celery -A worker.app flower --conf=config/flower.py`.

Who may look is set by FLOWER_BASIC_AUTH=user:password, where Flower listens by its command line.
"""

from lowtide.settings import load

_home = load().home
_home.mkdir(parents=True, exist_ok=True)

persistent = True
db = str(_home / "flower.db")
state_save_interval = 300_000  # milliseconds; saving 100,000 tasks stops Flower for some seconds
max_tasks = 100_000
purge_offline_workers = 3600  # seconds
natural_time = True
# Batch tasks tell lane and batch as routing key; arguments are hidden unless a setting shows them.
tasks_columns = "name,state,routing_key,args,received,runtime,result,worker,uuid"
