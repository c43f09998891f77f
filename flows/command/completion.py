"""What a shell completes in options and arguments: names, without importing torch."""

from collections.abc import Sequence


def setting_names(incomplete: str) -> list[str]:
    """The settings whose names begin so."""
    from dynconf_core.experiment.settings import names

    return _beginning(incomplete, names())


def profile_names(incomplete: str) -> list[str]:
    """The profiles whose names begin so."""
    from dynconf_core.experiment.profiles import PROFILES

    return _beginning(incomplete, tuple(PROFILES))


MEASURES = (
    *("max_softmax", "entropy", "gap", "patience", "learned"),
    *("seenn_1", "seenn_2", "dt_snn", "snncutoff", "spikecp", "spikecp_simes", "boosted_gate"),
)
"""The built-in measures; their registry imports torch, which takes longer than a user waits for a completion."""


def rule_names(incomplete: str) -> list[str]:
    """The measures whose names begin so, those of installed packages too, and ``best``."""
    from importlib.metadata import entry_points

    installed = (point.name for point in entry_points(group="dynconf.measures"))
    return _beginning(incomplete, tuple(dict.fromkeys(("best", *MEASURES, *installed))))


def stage_names(incomplete: str) -> list[str]:
    """The stages whose names begin so."""
    from dynconf_core.experiment import stages

    return _beginning(incomplete, stages.stage_names())


def fetched_names(incomplete: str) -> list[str]:
    """The data sets that can be fetched whose names begin so."""
    from dynconf_core.data.dataset import FETCHERS

    return _beginning(incomplete, FETCHERS.names())


def field_names(incomplete: str) -> list[str]:
    """The fields whose names begin so, each with the ``=`` that follows it."""
    from dynconf_core.experiment.overrides import known_fields

    return [f"{name}=" for name in _beginning(incomplete, tuple(known_fields()))]


def _beginning(incomplete: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
