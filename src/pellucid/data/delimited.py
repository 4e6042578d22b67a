"""Delimited text (CSV, TSV, …): what separates the columns, whether there is a header, and the rows in blocks."""

from __future__ import annotations

import bz2
import csv
import gzip
import itertools
import lzma
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from pellucid.data.storage import CHUNK_BYTES
from pellucid.data.tables import PLACES, TableBuilder, is_missing, is_number
from pellucid.errors import DataError, ParameterError, counted

DELIMITERS = (",", "\t", ";", "|", " ")
SAMPLE_BYTES = 2**16
SAMPLE_LINES = 20
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")


@dataclass
class Dialect:
    """How a delimited file is written.

    Arguments:
        delimiter: one character; a space stands for any run of spaces.
        encoding: such as ``"utf-8-sig"``.
        names: the columns, from the header or made up as ``column 1`` ….
        skip: lines before the first row of data.
        decimal: the decimal mark.
        classes, count: what a scikit-learn count line announces.
        report: sentences on what was decided.
    """

    delimiter: str
    encoding: str
    names: list[str]
    skip: int
    decimal: str = "."
    header: bool = False
    classes: list[str] | None = None
    count: int | None = None
    report: list[str] = field(default_factory=list)


def open_text(path: Path, encoding: str) -> IO[str]:
    """A text file, unpacked on the way when it is compressed (gzip, bzip2, xz)."""
    with path.open("rb") as file:
        magic = file.read(6)
    for start, opener in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open)):
        if magic.startswith(start):
            return opener(path, "rt", encoding=encoding, newline="")
    if magic.startswith((b"PK\x03\x04", b"PAR1", b"\x89HDF", b"\x93NUMPY")):
        raise DataError(
            "this is not text",
            where=str(path),
            expected="CSV or TSV",
            got=f"a file that begins with {magic!r}",
            hint="give the file its usual ending (.parquet, .npz, .npy); a spreadsheet must be saved as CSV first",
        )
    return path.open(encoding=encoding, newline="")


def _undecodable(path: Path, encoding: str, failure: Exception) -> DataError:
    line = 0
    with open_text(path, "latin-1") as stream:
        for line, text in enumerate(stream, 1):  # noqa: B007 - the number of the first bad line is what is looked for
            try:
                text.encode("latin-1").decode(encoding)
            except (UnicodeDecodeError, LookupError):
                break
    with open_text(path, "latin-1") as stream:
        utf16 = stream.read(2) in ("ÿþ", "þÿ")
    return DataError(
        f"this is not {encoding.removesuffix('-sig')} text",
        where=f"{path}, line {line}",
        expected=f"text in {encoding.removesuffix('-sig')}",
        got=str(failure),
        hint="encoding='utf-16'"
        if utf16
        else "encoding= says which it is: 'latin-1' and 'cp1252' are common in the West, 'cp949' in Korea",
    )


def _records(text: Sequence[str], delimiter: str, *, strict: bool = False) -> list[list[str]]:
    if delimiter == " ":
        text = [line.strip(" \r\n") + "\n" for line in text]
    reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=strict)
    rows = []
    try:
        for row in reader:
            if row:
                rows.append(row)
    except csv.Error:  # the sample may end within quotes; what follows reads it in full
        pass
    return rows


def sniff(
    path: Path,
    *,
    delimiter: str | None = None,
    header: bool | None = None,
    encoding: str | None = None,
    decimal: str | None = None,
    columns: Sequence[str] | None = None,
) -> Dialect:
    """How ``path`` is written, by its first lines and by what is given.

    Arguments:
        columns: names that the header must hold, when they are known from training.
    """
    encoding = encoding or "utf-8-sig"
    if delimiter is not None and len(delimiter) != 1:
        raise ParameterError("a delimiter is one character", where=str(path), got=repr(delimiter))
    try:
        with open_text(path, encoding) as stream:
            text = [*stream.readlines(SAMPLE_BYTES), *itertools.islice(stream, SAMPLE_LINES)]
    except UnicodeError as failure:
        raise _undecodable(path, encoding, failure) from None
    except LookupError:
        raise ParameterError(
            "unknown encoding", where=str(path), got=repr(encoding), hint="'utf-8', 'latin-1', 'cp949' …"
        ) from None
    except (OSError, EOFError, lzma.LZMAError) as failure:
        raise DataError(f"cannot be read: {failure}", where=str(path)) from failure
    report = []
    if delimiter is None and columns is not None and text and text[0].strip(' "\r\n') in columns:
        delimiter = ","  # a header of one known name: blanks in the lines below it are within texts
    if delimiter is None:
        delimiter = _sniff_delimiter(text)
        report.append(f"columns are separated by {_NAMED.get(delimiter, repr(delimiter))}")
    rows = _records(text, delimiter)
    if not rows:
        raise DataError("the file is empty", where=str(path), expected="rows of data")
    if decimal is None:
        decimal = "," if delimiter != "," and _has_decimal_commas(rows) else "."
        if decimal == ",":
            report.append("numbers are written with a decimal comma")
    dialect = Dialect(delimiter, encoding, [], 0, decimal, report=report)
    first = [cell.strip() for cell in rows[0]]
    if header is None and _is_count_line(first, rows[1:]):
        width = int(first[1]) + 1
        dialect.classes, dialect.count = first[2:], int(first[0])
        dialect.skip = 1
        dialect.names = _made_up(width)
        report.append(
            f"the last column holds the classes; line 1 is a count line as scikit-learn "
            f"writes it: {first[0]} examples, {first[1]} inputs, classes {', '.join(first[2:])}"
        )
        return dialect
    if header is None:
        if columns is not None and set(columns) <= set(first):
            header = True
        elif columns is not None and set(columns) <= set(_made_up(len(first) + 1)):
            header = False
        else:
            header = _is_header(first, rows[1:], decimal)
            report.append(
                "the first line names the columns" if header else "there is no header: the first line is data"
            )
    dialect.header = header
    if not header:
        width = Counter(map(len, rows)).most_common(1)[0][0]
        dialect.names = _made_up(width)
        return dialect
    dialect.names = [name or f"column {i}" for i, name in enumerate(first, 1)]
    dialect.skip = -1  # the header record, however many lines it takes
    twice = [name for name, count in Counter(dialect.names).items() if count > 1]
    if twice:
        raise DataError(
            "two columns have the same name",
            where=f"{path}, line 1",
            got=", ".join(map(repr, twice)),
            hint="rename one, or say header=False if line 1 is data",
        )
    return dialect


_NAMED = {",": "commas", "\t": "tabs", ";": "semicolons", " ": "spaces", "|": "bars"}


def _made_up(width: int) -> list[str]:
    return [f"column {i}" for i in range(1, width + 1)]


def _sniff_delimiter(text: Sequence[str]) -> str:
    """The delimiter that splits most lines into the same number of cells, and leaves cells without other delimiters."""
    best, best_score = ",", (0.0, 0.0)
    for delimiter in DELIMITERS:
        rows = _records(text[:500], delimiter)
        widths = Counter(len(row) for row in rows)
        width, agreeing = widths.most_common(1)[0] if rows else (1, 0)
        if width < 2:
            continue
        others = [other for other in DELIMITERS[:-1] if other != delimiter]
        cells = [cell for row in rows for cell in row]
        clean = sum(
            bool(_DECIMAL_COMMA.fullmatch(cell)) or not any(other in cell for other in others) for cell in cells
        )
        score = (round(agreeing / len(rows), 1), clean / len(cells))
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _has_decimal_commas(rows: Sequence[Sequence[str]]) -> bool:
    cells = [cell for row in rows for cell in row]
    return any(map(_DECIMAL_COMMA.fullmatch, cells)) and not any(
        re.fullmatch(r"\s*[-+]?\d+\.\d+\s*", cell) for cell in cells
    )


def _is_count_line(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    return (
        len(first) >= 4
        and first[0].isdecimal()
        and first[1].isdecimal()
        and not any(is_number(cell) for cell in first[2:])
        and bool(rows)
        and all(len(row) == int(first[1]) + 1 for row in rows[:20])
    )


def _is_header(first: Sequence[str], rows: Sequence[Sequence[str]], decimal: str) -> bool:
    """Names are not numbers and not repeated below; numbers below, or texts that never come back, settle it."""
    if any(is_number(cell.replace(decimal, ".")) or (cell and is_missing(cell)) for cell in first) or not any(first):
        return False
    if not rows:
        return True
    below = [[row[i].strip() for row in rows if i < len(row)] for i in range(len(first))]
    if any(is_number(cell.replace(decimal, ".")) for column in below for cell in column):
        return not any(name and name in column for name, column in zip(first, below, strict=True))
    return len(set(first)) == len(first) and not any(name in column for name, column in zip(first, below, strict=True))


def fill(builder: TableBuilder, path: Path, dialect: Dialect, chunk_bytes: int = CHUNK_BYTES) -> dict[str, Any]:
    """Give every row of ``path`` to ``builder``.

    Returns:
        Notes: how many rows there were and how many blank lines.

    Raises:
        DataError: rows of another width, an open quotation mark, text in another encoding, a count that is not met.
    """
    width = len(dialect.names)
    count = blank = ragged = 0
    ragged_at: list[tuple[int, int]] = []
    at = 0
    try:
        with open_text(path, dialect.encoding) as stream:
            header = dialect.skip < 0
            for _ in range(max(0, dialect.skip)):
                stream.readline()
                at += 1
            while lines := stream.readlines(chunk_bytes):
                if not header and builder.all_numeric and (block := _numbers(lines, dialect, width)) is not None:
                    builder.add_numbers(block)
                    count += len(block)
                    at += len(lines)
                    continue
                source = itertools.chain(lines, stream)
                if dialect.delimiter == " ":
                    source = (line.strip(" \r\n") + "\n" for line in source)  # type: ignore[assignment]
                reader = csv.reader(source, delimiter=dialect.delimiter, skipinitialspace=True, strict=True)
                rows, places = [], []
                while reader.line_num < len(lines):
                    place = at + reader.line_num + 1
                    try:
                        row = next(reader)
                    except csv.Error as failure:
                        raise DataError(
                            f"a quotation mark is out of place: {failure}",
                            where=f"{path}, from line {place}",
                            expected='"text" with every inner mark doubled: "say ""yes"""',
                        ) from None
                    if not row:
                        blank += 1
                    elif header:
                        header = False
                    elif len(row) != width:
                        ragged += 1
                        if len(ragged_at) < PLACES:
                            ragged_at.append((place, len(row)))
                    else:
                        rows.append(row)
                        places.append(place)
                at += reader.line_num
                if rows and not ragged:
                    builder.add(list(zip(*rows, strict=True)), np.array(places))
                count += len(rows)
    except UnicodeError as failure:
        raise _undecodable(path, dialect.encoding, failure) from None
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as failure:
        raise DataError(f"the compressed file is damaged: {failure}", where=str(path)) from failure
    if ragged:
        hint = "mend these rows; text with a delimiter in it must stand in quotation marks"
        if dialect.header and dialect.names[0].startswith("#"):
            hint = "lines that begin with # are no comments in CSV: remove them"
        elif dialect.header and ragged_at[0][1] == width + 1 and not count:
            hint = "every row has one cell more than the header: name the first column, probably of row names, there"
        raise DataError(
            f"{counted(ragged, 'row does', 'rows do')} not have {width} cells",
            where=f"{path}, line {', '.join(str(line) for line, _ in ragged_at)}",
            expected=f"{width} cells in every row{', as in the header' if dialect.header else ''}",
            got=", ".join(f"{cells} (line {line})" for line, cells in ragged_at),
            hint=hint,
        )
    if not count:
        raise DataError(
            "there is a header but no data" if dialect.header else "the file is empty",
            where=str(path),
            expected="rows of data",
            hint="header=False takes line 1 as data" if dialect.header else None,
        )
    if dialect.count is not None and dialect.count != count:
        raise DataError(
            "the count line does not fit the file",
            where=f"{path}, line 1",
            expected=f"{dialect.count} rows, as line 1 says",
            got=f"{count} rows",
            hint="the file may be cut off; header=False takes line 1 as data",
        )
    return {"rows": count, "blank": blank}


def _numbers(lines: Sequence[str], dialect: Dialect, width: int) -> np.ndarray | None:
    """A block of nothing but finite numbers, fast; None when the careful reader has to look at it."""
    if dialect.decimal != "." or not any(map(str.strip, lines)) or any('"' in line or "#" in line for line in lines):
        return None
    delimiter = None if dialect.delimiter == " " else dialect.delimiter
    try:
        block = np.loadtxt(lines, delimiter=delimiter, ndmin=2, comments=None)
    except ValueError:
        return None
    # a blank line is skipped by loadtxt, but is counted by the careful reader
    return block if block.shape == (len(lines), width) and np.isfinite(block).all() else None
