"""A Batch API server to develop and test against: ``lowtide simulate``.

``SimulatorServer`` runs one in a thread, ``SimulatorProcess`` in a process, ``create_app`` gives
the ASGI application.
"""

from lowtide.simulator.app import create_app
from lowtide.simulator.process import SimulatorProcess
from lowtide.simulator.server import SimulatorServer, serve
from lowtide.simulator.settings import Account, Limits, SimulatorSettings
from lowtide.simulator.steering import Steering

__all__ = [
    "Account",
    "Limits",
    "SimulatorProcess",
    "SimulatorServer",
    "SimulatorSettings",
    "Steering",
    "create_app",
    "serve",
]
