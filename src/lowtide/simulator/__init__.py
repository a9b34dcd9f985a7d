"""A Batch API server to develop and test against: ``lowtide simulate``.

``SimulatorServer`` runs one in a thread, ``create_app`` gives the ASGI application.
"""

from lowtide.simulator.app import create_app
from lowtide.simulator.server import SimulatorServer, serve
from lowtide.simulator.settings import Account, Limits, SimulatorSettings

__all__ = ["Account", "Limits", "SimulatorServer", "SimulatorSettings", "create_app", "serve"]
