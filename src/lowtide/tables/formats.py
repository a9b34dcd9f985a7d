"""CSV, XLSX and JSONL files as rows, one at a time, whatever their length."""

from __future__ import annotations

import codecs
import csv
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

import orjson

from lowtide.errors import LowtideError

Row = dict[str, Any]

FORMATS = ("csv", "tsv", "xlsx", "jsonl")
"""What a file's name may end with."""
_DELIMITERS = ",;\t|"
_SNIFFED = 65_536
_LONGEST_CELL = 16_000_000
_XLSX_CELL = 32_767  # more, and spreadsheets call the file broken


class TableError(LowtideError):
    """A table cannot be read, or is not what the work needs."""


def format_of(path: Path, done: str = "read") -> str:
    """The format by the file's name.

    Args:
        done: What is to be done with it, as the error says it: "read" or "written".

    Raises:
        TableError: It is none of `FORMATS`, or what it needs is not installed.
    """
    ending = path.suffix.lower().removeprefix(".")
    ending = "jsonl" if ending == "ndjson" else ending
    if ending not in FORMATS:
        raise TableError(
            f"{path.name} is no table that can be {done}; its name has to end with "
            f"{', '.join('.' + name for name in FORMATS)}."
        )
    if ending == "xlsx" and find_spec("openpyxl") is None:
        raise TableError(
            f'{path.name} cannot be {done} without openpyxl: pip install "lowtide[web]".'
        )
    return ending


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a table in their order, each as column name → value.

    Columns of CSV and XLSX are named by the first row, those of JSONL by each object's keys.
    Empty lines are left out.

    Raises:
        TableError: The file cannot be read; the message names the line.
    """
    reader = _READERS[format_of(path)]
    try:
        yield from reader(path)
    except OSError as error:
        raise TableError(f"{path.name} cannot be read: {error.strerror or error}.") from None


def columns_of(path: Path) -> list[str]:
    """The names of the columns; for JSONL those of its first hundred rows.

    Raises:
        TableError: The file cannot be read, or has no rows.
    """
    names: dict[str, None] = {}
    with closing(read_rows(path)) as rows:  # type: ignore[type-var]
        for number, row in enumerate(rows):
            names.update(dict.fromkeys(row))
            if number >= 100 or format_of(path) != "jsonl":
                break
    if not names:
        raise TableError(f"{path.name} has no rows below its header.")
    return list(names)


def write_rows(
    path: Path, columns: Sequence[str], rows: Iterable[Row], *, like: Path | None = None
) -> int:
    """Writes a table; `path` is there only once it is whole.

    Args:
        path: Its name tells the format.
        columns: The columns in their order; JSONL takes each row as it is.
        rows: Column name → value; what a row lacks stays empty.
        like: The table that the rows are of. A CSV file gets a mark of its encoding in front, as
            spreadsheets need it, unless this table is plain UTF-8 without one.

    Returns:
        How many rows.
    """
    writer = _WRITERS[format_of(path, "written")]
    if writer is _write_csv and like is not None and not _of_spreadsheets(like):
        writer = partial(_write_csv, encoding="utf-8")
    part = _beside(path)
    try:
        count = writer(part, columns, rows)
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def check_output(path: Path, source: Path) -> None:
    """Passes if answers for the rows of `source` can be written to `path`.

    Raises:
        TableError: They cannot, or would be written over the table itself.
    """
    format_of(path, "written")
    if path.is_dir():
        raise TableError(f"{path} is a folder; give the name of a file.")
    if path.exists() and path.samefile(source):
        raise TableError(f"{path} is the table itself; write the answers to another file.")
    try:
        _beside(path).unlink()
    except OSError as error:
        raise TableError(f"{path} cannot be written: {error.strerror or error}.") from None


def _beside(path: Path) -> Path:
    """A new file in the folder of `path`, which is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    return Path(name)


def as_text(value: Any) -> str:
    """A cell as it stands in a prompt or a CSV file."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    return orjson.dumps(value, default=str).decode()


def _read_csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_CELL)
    with path.open("r", encoding=_encoding(path), newline="") as file:
        dialect = _dialect(path, file)
        reader = csv.reader(file, delimiter=dialect)
        try:
            header = _header(path, next(reader, []))
            for cells in reader:
                if any(cells):
                    yield dict(zip(header, [*cells, *[""] * len(header)], strict=False))
        except (csv.Error, UnicodeDecodeError) as error:
            raise TableError(
                f"{path.name}, line {reader.line_num + 1}, cannot be read: {error}."
            ) from None


def _dialect(path: Path, file: TextIO) -> str:
    """The delimiter: what stands most often in the header, outside quotes."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    first = file.readline(_SNIFFED)
    file.seek(0)
    bare = "".join(first.split('"')[::2])
    return max(_DELIMITERS, key=bare.count)


def _encoding(path: Path) -> str:
    """UTF-8, UTF-16 with its mark, or what spreadsheets in the West save when they do not ask."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        start = file.read(2)
        if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
        file.seek(0)
        try:
            while chunk := file.read(1 << 20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8-sig"


def _of_spreadsheets(path: Path) -> bool:
    """Whether a table was made by a spreadsheet: one takes UTF-8 without a mark in front for
    something else.
    """
    if format_of(path) not in ("csv", "tsv"):
        return format_of(path) == "xlsx"
    with path.open("rb") as file:
        marked = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
    return marked or _encoding(path) != "utf-8-sig"


def _header(path: Path, cells: Sequence[Any]) -> list[str]:
    names = [as_text(cell).strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or not all(names) or twice:
        problem = f"has column {twice[0]!r} twice" if twice else "names not all columns"
        raise TableError(f"The first row of {path.name} {problem}.")
    return names


def _read_xlsx(path: Path) -> Iterator[Row]:
    from openpyxl import load_workbook

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:
        raise TableError(f"{path.name} is not a spreadsheet that can be read: {error}.") from None
    try:
        cells = book.worksheets[0].iter_rows(values_only=True)
        header = _header(path, next(cells, ()))
        for values in cells:
            if any(value is not None for value in values):
                yield dict(zip(header, [*values, *[None] * len(header)], strict=False))
    finally:
        book.close()


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            bare = line.removeprefix(codecs.BOM_UTF8).strip()
            if not bare:
                continue
            try:
                row = orjson.loads(bare)
            except orjson.JSONDecodeError as error:
                raise TableError(f"{path.name}, line {number}, is not JSON: {error}.") from None
            if not isinstance(row, dict):
                raise TableError(f"{path.name}, line {number}, is not a JSON object.")
            yield row


def _write_csv(
    path: Path, columns: Sequence[str], rows: Iterable[Row], encoding: str = "utf-8-sig"
) -> int:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        writer.writerow(columns)
        count = 0
        for row in rows:
            writer.writerow([as_text(row.get(name)) for name in columns])
            count += 1
    return count


def _write_xlsx(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> int:
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook(write_only=True)
    sheet = book.create_sheet("answers")
    sheet.append(list(columns))

    def cell(value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value
        made = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("", as_text(value))[:_XLSX_CELL])
        made.data_type = "s"  # an answer that starts with "=" is no formula
        return made

    count = 0
    for row in rows:
        sheet.append([cell(row.get(name)) for name in columns])
        count += 1
    book.save(path)
    return count


def _write_jsonl(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> int:
    del columns
    count = 0
    with path.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, default=str, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "csv": _read_csv,
    "tsv": _read_csv,
    "xlsx": _read_xlsx,
    "jsonl": _read_jsonl,
}
_WRITERS: dict[str, Callable[[Path, Sequence[str], Iterable[Row]], int]] = {
    "csv": _write_csv,
    "tsv": _write_csv,
    "xlsx": _write_xlsx,
    "jsonl": _write_jsonl,
}
