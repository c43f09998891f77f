"""Types of the flows' parameters, from which Prefect makes a deployment's form and its validation.

They are derived from the settings, profiles and overridable fields, so that a new entry there appears in the form.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from dynconf_core.experiment.overrides import known_fields
from dynconf_core.experiment.profiles import PROFILES
from dynconf_core.experiment.request import DURATION, SIZE
from dynconf_core.experiment.settings import names
from dynconf_core.schemes.field import Value

_NAMES = names()
_Named = Literal[*_NAMES]  # type: ignore[valid-type]
_OfYourOwn = Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$", description="package.module:SETTING")]
SettingName = _Named | _OfYourOwn
ProfileName = Literal[*PROFILES]  # type: ignore[valid-type]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=1)]
Memory = Annotated[str, Field(pattern=SIZE)]
Duration = Annotated[str, Field(pattern=DURATION)]

_fields: dict[str, Any] = {
    name: Annotated[field.kind, Field(title=name, description=field.wants)] for name, field in known_fields().items()
}
Overrides = TypedDict("Overrides", _fields, total=False)  # type: ignore[misc]
Overrides.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]


def values_of(overrides: Overrides | None) -> Mapping[str, Value]:
    """The overrides of a form, field to value."""
    return cast(Mapping[str, Value], overrides or {})
