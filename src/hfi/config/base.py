"""What every section of a study's settings is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

NOT_SAID = "the paper does not say"
Positive = Annotated[int, Field(gt=0)]
Above = Annotated[float, Field(gt=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def decisive(self) -> dict:
        """The settings that a stage's outputs depend on, as plain data."""
        return self.model_dump(mode="json")
