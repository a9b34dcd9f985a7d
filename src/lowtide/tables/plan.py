"""What is to be done with each row of a table: a task on a column, or a prompt with places."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lowtide.tables.formats import Row, TableError, as_text

PROMPT_TASK = "tasks.prompt"
"""The ready-made task that takes a finished prompt."""
_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a row.

    Attributes:
        task: Name of a batch task whose first argument is text.
        column: The column that holds the text. Either this or `prompt`.
        prompt: Text with `{column}` where a row's values go; `{{` and `}}` are braces.
        options: Other arguments of the task, the same for all rows.
        answer: Column that the answers go to.
        error: Column that errors go to.
    """

    task: str = PROMPT_TASK
    column: str | None = None
    prompt: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    answer: str = "answer"
    error: str = "error"

    def check(self, columns: Sequence[str]) -> None:
        """Passes if the plan fits a table with these columns.

        Raises:
            TableError: A column is missing, or neither or both of column and prompt are given.
        """
        if bool(self.column) == bool(self.prompt):
            raise TableError("Choose a column, or write a prompt with {column} in it; one of them.")
        wanted = places(self.prompt) if self.prompt else [str(self.column)]
        if not wanted:
            raise TableError(
                "The prompt names no column, so every row would get the same answer; write "
                f"{{{columns[0]}}} where a row's text goes."
            )
        missing = [name for name in wanted if name not in columns]
        if missing:
            raise TableError(
                f"The table has no column {missing[0]!r}; it has: {', '.join(columns)}."
            )

    def text(self, row: Row) -> str:
        """The text that the task gets for a row; empty when the row has none."""
        if self.prompt is None:
            return as_text(row.get(str(self.column)))
        if not any(as_text(row.get(name)).strip() for name in places(self.prompt)):
            return ""

        def fill(match: re.Match[str]) -> str:
            if match[1] is None:
                return match[0][0]
            return as_text(row.get(match[1].strip()))

        return _PLACE.sub(fill, self.prompt)

    def call(self, row: Row) -> tuple[list[Any], dict[str, Any]] | None:
        """(args, kwargs) of the task for a row; None when it has no text."""
        text = self.text(row)
        return ([text], dict(self.options)) if text.strip() else None

    def output_columns(self, columns: Sequence[str]) -> list[str]:
        """The columns of the table with answers: those of the input, then answer and error."""
        ours = (self.answer, self.error)
        return [*(name for name in columns if name not in ours), *ours]


def places(prompt: str) -> list[str]:
    """The columns that a prompt names, each once, in their order."""
    found = (match[1] for match in _PLACE.finditer(prompt) if match[1] is not None)
    return list(dict.fromkeys(name.strip() for name in found))
