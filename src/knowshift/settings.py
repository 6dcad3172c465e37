"""Options as pydantic models whose refusals name the flag in one line."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from knowshift.errors import InputError


class Settings(BaseModel):
    """Base of every set of options: immutable, no unknown names, wrong values are ``InputError``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(values)
        except ValidationError as error:
            first = error.errors()[0]
            flag = "--" + "-".join(str(part).replace("_", "-") for part in first["loc"])
            raise InputError(f"{flag} {first.get('input')!r}: {first['msg']}") from error
