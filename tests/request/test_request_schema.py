"""Structured output: the strict schema, as the openai SDK makes it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Optional

import jsonschema_rs
import pytest
from openai import pydantic_function_tool
from pydantic import BaseModel, ConfigDict, Field, create_model

from lowtide.schema import property_names, response_format, strict_schema, text_format


class Color(StrEnum):
    """A color."""

    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    name: str = Field(description="What it is called")
    color: Color = Color.RED


class Flat(BaseModel):
    """A flat one."""

    number: int
    text: str | None = None
    choice: Literal["a", "b"] = "a"


class Nested(BaseModel):
    first: Part
    described: Part = Field(description="Beside a reference")
    parts: list[Part]
    either: Part | Flat | None = None
    many: dict[str, Part] | None = None
    pair: tuple[int, str] | None = None


class Tree(BaseModel):
    value: Annotated[int, Field(ge=0)]
    children: list[Tree] = []
    parent: Optional[Tree] = None  # noqa: UP045 - the older spelling


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inner: str = Field(alias="The name, as people write it")


MODELS = [Part, Flat, Nested, Tree, Aliased, create_model("Odd name (v2)!", x=(int, ...))]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_schema_is_the_one_of_the_openai_sdk(model: type[BaseModel]):
    theirs: Any = pydantic_function_tool(model, name="x")["function"]["parameters"]

    assert strict_schema(model) == theirs
    assert list(strict_schema(model)["properties"]) == list(theirs["properties"])
    jsonschema_rs.validator_for(strict_schema(model))


def test_both_endpoints_get_the_schema_in_their_own_form():
    schema = strict_schema(Flat)

    assert response_format(Flat) == {
        "type": "json_schema",
        "json_schema": {"name": "Flat", "strict": True, "schema": schema},
    }
    assert text_format(Flat) == {
        "type": "json_schema", "name": "Flat", "strict": True, "schema": schema,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "name"),
    [("Odd name (v2)!", "Odd_name_v2"), ("x" * 99, "x" * 64), ("Größe", "Gr_e"), ("…", "output")],
)
def test_names_keep_to_what_the_api_allows(given: str, name: str):
    assert text_format(create_model(given, x=(int, ...)))["name"] == name


def test_property_names_are_found_at_any_depth():
    assert property_names(Nested) >= {"first", "parts", "name", "color", "number", "choice"}
    assert property_names(Aliased) == {"The name, as people write it"}
