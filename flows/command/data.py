"""``dynconf data fetch``: download a data set."""

from typing import Annotated

import typer

from dynconf_core.data.dataset import DATASETS, FETCHERS
from dynconf_core.errors import InputError
from dynconf_core.experiment.request import check_writable, data_folder, home_folder
from dynconf_flows.command.completion import fetched_names
from dynconf_flows.command.options import Data, Home
from dynconf_flows.command.terminal import Terminal


def fetch(
    name: Annotated[str, typer.Argument(help="cifar10, cifar100 or imagenette.", autocompletion=fetched_names)],
    data: Data = None,
    home: Home = None,
) -> None:
    """Download a data set and verify it."""
    if name in DATASETS.names() and name not in FETCHERS.names():
        raise InputError(
            f"data set {name!r} cannot be fetched, only {', '.join(FETCHERS.names())} can: digits come with scikit-learn, "
            "and ImageNet's licence requires your own login."
        )
    fetch_it = FETCHERS.get(name)
    console = Terminal()
    root = data_folder(data, home_folder(home))
    check_writable(root)
    fetch_it(root, say=lambda text: console.print(text))
