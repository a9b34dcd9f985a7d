"""Tables as people have them: delimiters, encodings, spreadsheets, JSON lines, and damage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.tables import TableError, columns_of, read_rows, write_rows

ROWS = [
    {"name": "Ada", "text": 'says "hi"; then, leaves\nsoon'},
    {"name": "Bö", "text": "=1+1"},
]


@pytest.mark.parametrize("ending", ["csv", "tsv", "xlsx", "jsonl"])
def test_what_was_written_is_read(tmp_path, ending):
    path = tmp_path / f"table.{ending}"

    count = write_rows(path, ["name", "text"], iter(ROWS))

    assert count == 2
    assert list(read_rows(path)) == ROWS
    assert columns_of(path) == ["name", "text"]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("name,text\nAda,x\n", "utf-8"),
        ("name;text\nAda;x\n", "utf-8-sig"),
        ("name\ttext\r\nAda\tx\r\n", "utf-16"),
        ('"name"|"text"\n"Ada"|"x"', "cp1252"),
        ("name,text,\nAda,x,\n\n", "utf-8"),
    ],
)
def test_csv_as_spreadsheets_save_it(tmp_path, content, encoding):
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode(encoding))

    assert [{k: v for k, v in row.items() if k} for row in read_rows(path)] == [
        {"name": "Ada", "text": "x"}
    ]


def test_western_letters_without_utf8(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("name;text\nJosé;größer\n".encode("cp1252"))

    assert list(read_rows(path)) == [{"name": "José", "text": "größer"}]


def test_rows_of_uneven_length(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1\n1,2,3\n")

    assert list(read_rows(path)) == [{"a": "1", "b": ""}, {"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("table.pdf", "x", "no table that can be read"),
        ("table.csv", "", "names not all columns"),
        ("table.csv", "a,a\n1,2\n", "column 'a' twice"),
        ("table.csv", "a,,b\n1,2,3\n", "names not all columns"),
        ("table.csv", "a,b\n", "no rows below its header"),
        ("table.jsonl", '{"a": 1}\n{"a": \n', "line 2, is not JSON"),
        ("table.jsonl", "[1]\n", "line 1, is not a JSON object"),
        ("table.xlsx", "no zip", "not a spreadsheet"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, name, content, told):
    path = tmp_path / name
    path.write_text(content)

    def read():
        columns_of(path)
        return list(read_rows(path))

    with pytest.raises(TableError, match=told):
        read()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("old")

    def rows():
        yield {"a": 1}
        raise TableError("no more")

    with pytest.raises(TableError):
        write_rows(path, ["a"], rows())

    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=5))
def test_any_text_survives_csv(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "table.csv"
    table = [{"a": a, "b": b} for a, b in rows]

    write_rows(path, ["a", "b"], table)

    assert list(read_rows(path)) == table


@pytest.mark.parametrize(
    ("content", "marked"),
    [
        (b"name,text\nAda,x\n", False),
        (b"\xef\xbb\xbfname;text\nAda;x\n", True),
        ("name\ttext\nAda\tx\n".encode("utf-16"), True),
        ("name;text\nJos\u00e9;x\n".encode("cp1252"), True),  # as spreadsheets save it
    ],
)
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_csv_has_a_mark_in_front_if_spreadsheets_are_used(tmp_path, content, marked, ending):
    source = tmp_path / "in.csv"
    source.write_bytes(content)
    out = tmp_path / f"out.{ending}"

    write_rows(out, ["name"], [{"name": "Ada"}], like=source)

    assert out.read_bytes().startswith(b"\xef\xbb\xbf") is marked


def test_csv_made_of_a_spreadsheet_has_a_mark_in_front(tmp_path):
    source, out = tmp_path / "in.xlsx", tmp_path / "out.csv"
    write_rows(source, ["name"], [{"name": "Ada"}])

    write_rows(out, ["name"], [{"name": "Ada"}], like=source)

    assert out.read_bytes().startswith(b"\xef\xbb\xbf")
