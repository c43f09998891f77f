"""``dynconf deploy``: the deployments of the flows on the user's Prefect server."""

from typing import Annotated

import typer

from dynconf_core.errors import InputError
from dynconf_core.experiment.request import seconds
from dynconf_flows import deployments
from dynconf_flows.command.options import AsJson, print_json
from dynconf_flows.command.server import check_api
from dynconf_flows.command.terminal import Terminal
from dynconf_tasks.answering import without_password


def deploy(
    pool: Annotated[str | None, typer.Option(help="Work pool whose workers run them [default: dynconf].")] = None,
    automations: Annotated[
        bool, typer.Option("--automations", help="Also have the server crash silent runs, and run crashed ones again.")
    ] = False,
    grace: Annotated[
        str,
        typer.Option(metavar="DURATION", envvar="DYNCONF_GRACE", help="With --automations: the silence that means death."),
    ] = "5m",
    as_json: AsJson = False,
) -> None:
    """Deploy the flows on your Prefect server.

    Afterwards workers on any machine with dynconf installed run reproduce, setting, sweep and analyse, started from the form in
    the browser, by `prefect deployment run`, or by a schedule.
    """
    silence = int(seconds(grace, "--grace"))
    if automations and silence < deployments.SHORTEST_GRACE:
        raise InputError(
            f"--grace {grace}: runs that live would be taken for dead, give at least {deployments.SHORTEST_GRACE}s: "
            "a deployed run sends a heartbeat every 30 s."
        )
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    address = get_current_settings().api.url
    if not address:
        raise InputError(
            "PREFECT_API_URL is not set: name your Prefect server, such as "
            "PREFECT_API_URL=http://127.0.0.1:4200/api, which `prefect server start` starts."
        )
    check_api(str(address))
    with get_client(sync_client=True) as client:
        deployed = deployments.deploy(client, pool)
        automated = deployments.automate(client, silence) if automations else []
    if as_json:
        print_json({"server": without_password(str(address)), "deployments": deployed, "automations": automated})
        return
    console = Terminal()
    for name in deployed:
        console.print(f"deployed {name}", soft_wrap=True)
    for name in automated:
        console.print(f"automation {name}", soft_wrap=True)
