"""A setting from outside: its data, network, scheme and neurons are those of the files beside this one."""

from dynconf_core.experiment.recipe import Recipe
from dynconf_core.experiment.settings import Setting

_RECIPE = Recipe(epochs=6, batch_size=20, learning_rate=0.1, augmentation=("flip",), initial_threshold=1.0)

SETTING = Setting(
    name="stripes-small-thirds",
    dataset="stripes:STRIPES",
    architecture="small_network:SMALL",
    method="thirds:Thirds",
    recipes={"smoke": _RECIPE},
)
