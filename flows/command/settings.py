"""``dynconf settings``: the settings, the values of the profiles and the paper's figures."""

from rich.console import Console

from dynconf_core.experiment.profiles import PROFILES, resolve
from dynconf_core.experiment.settings import SETTINGS
from dynconf_flows.command.options import AsJson, print_json


def settings(as_json: AsJson = False) -> None:
    """List the settings, the profiles and the paper's figures."""
    if as_json:
        content = {
            name: {
                **{profile: resolve(name, profile).as_dict() for profile in PROFILES},
                "paper": vars(entry.published) if entry.published else None,
            }
            for name, entry in SETTINGS.items()
        }
        print_json({"schema": 2, "settings": content})
        return
    from dynconf_flows.command.tables import profiles_table, settings_table

    console = Console()
    console.print(settings_table())
    console.print(profiles_table())
