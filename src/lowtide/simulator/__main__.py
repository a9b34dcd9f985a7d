"""``python -m lowtide.simulator`` is ``lowtide simulate``."""

import typer

from lowtide.simulator.cli import simulate

if __name__ == "__main__":
    typer.run(simulate)
