"""``dynconf settings``: the settings, the values of the profiles and the paper's figures."""

from typing import Any

from dynconf_core.errors import InputError
from dynconf_core.experiment.profiles import plans
from dynconf_core.experiment.settings import names, setting
from dynconf_flows.command.options import AsJson, print_json
from dynconf_flows.command.terminal import Terminal


def settings(as_json: AsJson = False) -> None:
    """List the settings, the profiles and the paper's figures.

    Further settings of the project and those of installed packages are listed too.
    """
    if as_json:
        print_json({"schema": 2, "settings": {name: _as_json(name) for name in names()}})
        return
    from dynconf_flows.command.tables import profiles_table, settings_table

    console = Terminal()
    console.print(settings_table())
    console.print(profiles_table())


def _as_json(name: str) -> dict[str, Any]:
    """The plans of a setting by profile and the paper's figures, or why the setting cannot be used."""
    try:
        published = setting(name).published
        found = {profile: plan.as_dict() for profile, plan in plans(name).items()}
    except InputError as error:
        return {"error": str(error)}
    return {**found, "paper": vars(published) if published else None}
