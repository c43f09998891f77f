"""The entry point of the command ``dynconf``, which reports missing extras before it imports anything else."""

import os
import sys

from dynconf_flows.command.signals import handled, leave
from dynconf_tasks.interruption import Stopped

EXTRAS = {
    **dict.fromkeys(("matplotlib", "PIL", "pydantic", "scipy", "sklearn"), "analysis"),
    **dict.fromkeys(
        ("fastapi", "filelock", "mlflow", "optuna", "prefect", "rich", "sqlalchemy", "torchvision", "typer", "yaml"),
        "pipeline",
    ),
}
"""The optional dependency of pyproject.toml that brings each package."""
UNUSABLE = 2
"""Exit code for invalid input; nothing was started."""


def main() -> None:
    """The command ``dynconf``."""
    os.environ["PYTHONSAFEPATH"] = "1"  # no interpreter that is started from here runs what lies in the current folder
    try:
        with handled():
            try:
                from dynconf_flows.command.main import main as run
            except Stopped:
                leave()
            run()
    except ModuleNotFoundError as error:
        message = missing_extra(error)
        if message is None or "--debug" in sys.argv:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(UNUSABLE)


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """A message on what to install if a package of one of the extras is missing; None for any other module."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    asked = f"dynconf {command}".strip()
    return f"`{asked}` needs {package}, which is not installed: pip install 'dynconf[{EXTRAS[package]}]'."
