"""Types of the flows' parameters, from which Prefect makes a deployment's form and its validation.

They are derived from the settings, profiles and overridable fields, so that a new entry there appears in the form.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from dynconf_core.experiment.overrides import by_name, known_fields
from dynconf_core.experiment.points import SEED
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
WorkerCount = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
CheckpointFile = Annotated[str, Field(pattern=r"^[\w.:-]+\s*=.+$", title="SETTING=PATH", description="SETTING=PATH")]
Memory = Annotated[str, Field(pattern=SIZE)]
Duration = Annotated[str, Field(pattern=DURATION)]

_fields: dict[str, Any] = {
    name: Annotated[field.kind, Field(title=name, description=field.wants)] for name, field in known_fields().items()
}
Overrides = TypedDict("Overrides", _fields, total=False)  # type: ignore[misc]
Overrides.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]

_SWEPT = rf"^({'|'.join([*known_fields(), SEED])})\s*=\s*"
_VALUE = r"\.?[^,.]+(\.[^,.]+)*\.?"
GridField = Annotated[
    str, Field(pattern=rf"{_SWEPT}{_VALUE}(,{_VALUE})*$", title="FIELD=A,B,C", description="such as time_steps=8,16,32")
]
"""A field of a grid and its values."""
StudyField = Annotated[
    str,
    Field(
        pattern=rf"{_SWEPT}({_VALUE}\.\.{_VALUE}|{_VALUE}(,{_VALUE})+)$",
        title="FIELD=LOW..HIGH or FIELD=A,B,C",
        description="such as alpha=1..100, or rule=entropy,gap",
    ),
]
"""A field of a study and its range, or the values from which Optuna chooses."""


def swept_texts(given: Sequence[str] | None, parameter: str) -> dict[str, str]:
    """What a form's ``grid`` or ``study`` says: by field, the values or range as text.

    Raises:
        InputError: if a text has no "=", or a field is given twice.
    """
    return by_name(given or (), parameter, "FIELD=VALUES, such as time_steps=8,16,32")


def checkpoint_files(given: Sequence[str] | None) -> dict[str, str]:
    """What a form's ``checkpoints`` say: by setting, the path of a file.

    Raises:
        InputError: if a text has no "=", or a setting is given twice.
    """
    return by_name(given or (), "checkpoints", "SETTING=PATH")


def values_of(overrides: Overrides | None) -> Mapping[str, Value]:
    """The overrides of a form, field to value."""
    return cast(Mapping[str, Value], overrides or {})
