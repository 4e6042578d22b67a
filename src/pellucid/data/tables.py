"""Columns of a table as they come in, block by block: what each holds, and the data set they make."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.data.dataset import Dataset, Table
from pellucid.data.storage import FileRows, RowWriter, replacing, row_bytes, row_chunks
from pellucid.errors import DataError, ParameterError, counted, unknown

MISSING = {"", "na", "n/a", "nan", "null", "?"}
IMPUTATIONS = ("mean", "median", "most_frequent", "drop")
TARGET_NAMES = ("target", "label", "class", "species", "y")
FEW_LEVELS = 20  # a text column of up to so many distinct texts is categorical whatever the number of rows
MANY_LEVELS = 100  # more are taken as categories only by ask
LEVELS_LIMIT = 100_000  # past this the distinct texts themselves would fill the memory
PLACES = 3  # of each problem, so many places are named

_YEAR_FIRST = re.compile(r"\d{4}[-/]\d{1,2}[-/]\d{1,2}([T ].*)?")
_DAY_FIRST = re.compile(r"\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}( .*)?")
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")  # 0,123 is no thousand
_EIGHT_DIGITS = re.compile(r"(1[89]|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")


@dataclass
class Column:
    """What is known of one column.

    Arguments:
        name: its name.
        kind: ``"numeric"``, ``"date"`` (days since 1970-01-01), ``"text"``, ``"dropped"``, or "" while unknown.
        levels: distinct texts, with how often and where first each stands.
        missing, infinite: how many, and the first places.
    """

    name: str
    kind: str = ""
    levels: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    missing: int = 0
    missing_at: list[int] = field(default_factory=list)
    infinite: int = 0
    infinite_at: list[int] = field(default_factory=list)


class Retype(Exception):  # noqa: N818 - not an error: the reading starts again with what it learned
    """A column holds something else than its first block let expect."""

    def __init__(self, column: str, kind: str) -> None:
        self.column, self.kind = column, kind


def is_missing(text: str) -> bool:
    """Whether a cell says that it holds nothing: empty, NA, N/A, NaN, null or ?."""
    return text.strip().lower() in MISSING


def as_numbers(texts: Sequence[str], decimal: str = ".") -> np.ndarray:
    """Texts as float64, NaN where missing.

    Raises:
        ValueError: one is neither a number nor missing.
    """
    if decimal != ".":
        texts = [text.replace(decimal, ".") for text in texts]
    try:
        return np.array(texts, dtype=np.float64)
    except ValueError:
        return np.array([math.nan if is_missing(text) else float(text) for text in texts])


def as_days(texts: Sequence[str]) -> np.ndarray:
    """Dates, year first, as float64 days since 1970-01-01, NaN where missing.

    Raises:
        ValueError: one is not such a date.
    """
    moments = []
    for text in texts:
        text = text.strip()
        if _EIGHT_DIGITS.fullmatch(text):
            text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
        if is_missing(text):
            text = "NaT"
        elif not _YEAR_FIRST.fullmatch(text):
            raise ValueError(text)
        moments.append(text.replace("/", "-").removesuffix("Z"))
    days = np.array(moments, dtype="datetime64[s]").astype(np.float64) / 86400
    days[np.array(moments) == "NaT"] = np.nan
    return days


def is_number(text: str) -> bool:
    """Whether Python reads the text as a float."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def guess_kind(name: str, texts: Sequence[str], decimal: str) -> str:
    """``"numeric"``, ``"date"`` or ``"text"``, whichever all the texts of a block allow."""
    present = [text.strip() for text in texts if not is_missing(text)]
    if present and "date" in name.lower() and all(map(_EIGHT_DIGITS.fullmatch, present)):
        return "date"
    try:
        as_numbers(texts, decimal)
        return "numeric"
    except ValueError:
        dates = all(_YEAR_FIRST.fullmatch(text) or _DAY_FIRST.fullmatch(text) for text in present)
        return "date" if dates else "text"


class TableBuilder:
    """Takes blocks of columns and writes them as rows.

    Arguments:
        columns: the columns in order; kinds that are "" are decided by the first block.
        unit: what a place is called, ``"line"`` or ``"row"``.
        where: the source, for messages.
        dates: ``"numeric"`` to keep dates as days; None to refuse them.
        decimal: the decimal mark.
        scratch: folder for what does not fit in ``memory_limit`` bytes.
    """

    def __init__(
        self,
        columns: list[Column],
        *,
        unit: str,
        where: str,
        dates: str | None,
        decimal: str,
        asked: Collection[str],
        scratch: Path,
        memory_limit: int,
    ) -> None:
        self.columns, self.unit, self.where, self.dates, self.decimal = columns, unit, where, dates, decimal
        self.asked = asked
        self._scratch, self._memory_limit = scratch, memory_limit
        self._lookup: dict[str, dict[str, int]] = {column.name: {} for column in columns}
        self._writers: tuple[RowWriter, RowWriter] | None = None

    @property
    def all_numeric(self) -> bool:
        return all(column.kind == "numeric" for column in self.columns)

    def numeric_names(self) -> list[str]:
        return [column.name for column in self.columns if column.kind in ("numeric", "date")]

    def text_names(self) -> list[str]:
        return [column.name for column in self.columns if column.kind == "text"]

    def add_numbers(self, block: np.ndarray) -> None:
        """Rows of finite numbers; every column is numeric."""
        numeric, codes = self._open()
        numeric.append(block)
        codes.append(np.empty((len(block), 0), np.int32))

    def add(self, blocks: Sequence[Sequence[str] | np.ndarray], places: np.ndarray) -> None:
        """One block: for each column its texts, or its numbers with NaN where missing; and the place of each row.

        Raises:
            Retype: a column turns out to be of another kind.
            DataError: dates that nobody asked for, more distinct texts than can be kept.
        """
        converted = [
            self._convert(column, block, places) if column.kind != "dropped" else None
            for column, block in zip(self.columns, blocks, strict=True)
        ]
        numeric, codes = self._open()
        count = len(places)
        for writer, kinds in ((numeric, ("numeric", "date")), (codes, ("text",))):
            parts = [
                part
                for column, part in zip(self.columns, converted, strict=True)
                if part is not None and column.kind in kinds
            ]
            writer.append(np.stack(parts, axis=1) if parts else np.empty((count, 0), writer.dtype))

    def _open(self) -> tuple[RowWriter, RowWriter]:
        if self._writers is None:
            self._writers = tuple(
                RowWriter(self._scratch / name, dtype, (len(names),), self._memory_limit)
                for name, dtype, names in (
                    ("numeric", np.float64, self.numeric_names()),
                    ("codes", np.int32, self.text_names()),
                )
            )  # type: ignore[assignment]
        assert self._writers is not None
        return self._writers

    def _convert(self, column: Column, block: Sequence[str] | np.ndarray, places: np.ndarray) -> np.ndarray:
        if isinstance(block, np.ndarray):
            column.kind = column.kind or "numeric"
            if column.kind == "text":
                block = ["" if math.isnan(value) else f"{value:.15g}" for value in block.tolist()]
            else:
                return self._note(column, block, np.isnan(block), places)
        if not column.kind:
            column.kind = guess_kind(column.name, block, self.decimal)
        if column.kind == "text":
            return self._encode(column, block, places)
        try:
            if column.kind == "date":
                numbers = self._days(column, block)
            else:
                numbers = as_numbers(block, self.decimal)
        except DataError:
            raise
        except ValueError:
            raise Retype(column.name, "text" if column.kind == "numeric" else "numeric") from None
        return self._note(column, numbers, np.isnan(numbers), places)

    def _days(self, column: Column, block: Sequence[str]) -> np.ndarray:
        example = next((text for text in block if not is_missing(text)), "")
        if guess_kind(column.name, block, self.decimal) != "date":
            raise ValueError
        if self.dates != "numeric":
            raise DataError(
                f"column {column.name!r} holds dates",
                where=self.where,
                expected="numbers or categories",
                got=repr(example),
                hint=f"dates='numeric' takes days since 1970-01-01; drop=[{column.name!r}] leaves the column out",
            )
        try:
            return as_days(block)
        except ValueError:
            raise DataError(
                f"column {column.name!r} holds dates that can be read in more than one way, or not at all",
                where=self.where,
                expected="year-month-day, such as 2001-12-31",
                got=repr(example),
                hint=f"rewrite the column, or leave it out with drop=[{column.name!r}]",
            ) from None

    def _note(self, column: Column, values: np.ndarray, missing: np.ndarray, places: np.ndarray) -> np.ndarray:
        if missing.any():
            column.missing += int(missing.sum())
            column.missing_at += places[missing][: PLACES - len(column.missing_at)].tolist()
        if values.dtype.kind == "f" and (infinite := np.isinf(values)).any():
            column.infinite += int(infinite.sum())
            column.infinite_at += places[infinite][: PLACES - len(column.infinite_at)].tolist()
        return values

    def _encode(self, column: Column, texts: Sequence[str], places: np.ndarray) -> np.ndarray:
        lookup = self._lookup[column.name]
        codes = np.empty(len(texts), np.int32)
        for i, text in enumerate(texts):
            text = text.strip()
            code = lookup.get(text)
            if code is None:
                if text.lower() in MISSING:
                    codes[i] = -1
                    continue
                code = lookup[text] = len(lookup)
                column.levels.append(text)
                column.first.append(int(places[i]))
            codes[i] = code
        if len(lookup) > LEVELS_LIMIT and column.name not in self.asked:
            raise DataError(
                f"column {column.name!r} holds more than {LEVELS_LIMIT:,} different texts",
                where=self.where,
                expected="numbers, or a few categories",
                got=f"{column.levels[0]!r}, {column.levels[1]!r}, {column.levels[2]!r}, …",
                hint=f"drop=[{column.name!r}] leaves the column out",
            )
        counts = np.bincount(codes[codes >= 0], minlength=len(lookup))
        counts[: len(column.counts)] += np.array(column.counts, dtype=counts.dtype)
        column.counts = counts.tolist()
        return self._note(column, codes, codes < 0, places)

    def save(self, notes: dict[str, Any]) -> Table | None:
        """The table when it is in memory; None when it was written to the scratch folder, with ``notes``."""
        numeric, codes = self._open()
        if numeric.spilled or codes.spilled:
            numeric.spill()
            codes.spill()
            numeric.finish()
            codes.finish()
            description = {"rows": numeric.length, "columns": [asdict(column) for column in self.columns], **notes}
            (self._scratch / "table.json").write_text(json.dumps(description), encoding="utf-8")
            return None
        return make_table(numeric.finish(), codes.finish(), self.columns)

    def close(self) -> None:
        for writer in self._writers or ():
            writer.close()


def make_table(numeric: Any, codes: Any, columns: Sequence[Column]) -> Table:
    """A `Table` of the columns that were kept."""
    return Table(
        numeric,
        codes,
        [column.name for column in columns if column.kind in ("numeric", "date")],
        {column.name: column.levels for column in columns if column.kind == "text"},
        [column.name for column in columns if column.kind != "dropped"],
    )


@dataclass
class ReadTable:
    """A table with what its reader noticed."""

    table: Table
    columns: list[Column]
    unit: str
    where: str
    notes: dict[str, Any]


def read_table(
    fill: Callable[[TableBuilder], dict[str, Any]],
    columns: Sequence[Column],
    *,
    unit: str,
    where: str,
    folder: Path,
    stamp: str,
    memory_limit: int,
    dates: str | None = None,
    decimal: str = ".",
    asked: Collection[str] = (),
) -> ReadTable:
    """Read a table block by block, into memory or, past ``memory_limit`` bytes, into files in ``folder``.

    Arguments:
        fill: gives every block to the builder and returns notes that JSON can hold.
        columns: names and, where asked for, kinds.
        stamp: says which state of the source the files are of; with another stamp they are made anew.
    """
    description = folder / "table.json"
    if description.exists():
        saved = json.loads(description.read_text(encoding="utf-8"))
        if saved["notes"]["stamp"] == stamp:
            return _open_table(saved, folder, unit, where)
    kinds = {column.name: column.kind for column in columns}
    tried: set[tuple[str, str]] = set()
    while True:
        try:
            with replacing(folder) as scratch:
                builder = TableBuilder(
                    [Column(name, kind) for name, kind in kinds.items()],
                    unit=unit,
                    where=where,
                    dates=dates,
                    decimal=decimal,
                    asked=asked,
                    scratch=scratch,
                    memory_limit=memory_limit,
                )
                try:
                    notes = {**fill(builder), "stamp": stamp}
                    table = builder.save({"notes": notes})
                finally:
                    builder.close()
        except Retype as found:
            # dates and numbers in one column would alternate for ever
            kinds[found.column] = found.kind if (found.column, found.kind) not in tried else "text"
            tried.add((found.column, found.kind))
            continue
        if table is not None:
            return ReadTable(table, builder.columns, unit, where, notes)
        return _open_table(json.loads(description.read_text(encoding="utf-8")), folder, unit, where)


def _open_table(saved: dict[str, Any], folder: Path, unit: str, where: str) -> ReadTable:
    columns = [Column(**fields) for fields in saved["columns"]]
    texts = sum(column.kind == "text" for column in columns)
    numbers = sum(column.kind in ("numeric", "date") for column in columns)
    # a map of no bytes does not exist, so a block without columns is an array
    numeric, codes = (
        FileRows(folder / name, dtype, (saved["rows"], width)) if width else np.empty((saved["rows"], 0), dtype)
        for name, dtype, width in (("numeric", np.float64, numbers), ("codes", np.int32, texts))
    )
    return ReadTable(make_table(numeric, codes, columns), columns, unit, where, saved["notes"])


def make_dataset(
    read: ReadTable,
    *,
    name: str,
    target: str | int | bool | None = None,
    targets: np.ndarray | None = None,
    task: str | None = None,
    classes: Sequence[str] | None = None,
    categorical: Collection[str] = (),
    drop: Collection[str] = (),
    missing: str | None = None,
    report: Sequence[str] = (),
    fingerprint: Callable[[], str] | None = None,
    trained: Mapping[str, str] | None = None,
    need_classes: bool = True,
) -> Dataset:
    """The data set a table makes: which column is the target, which columns are inputs, whether all of it can be used.

    Arguments:
        target: name or index of the target column; False for none; None to choose.
        targets: the targets themselves, when they stand elsewhere.
        trained: kinds of the input columns, when the table must fit a trained network.
    """
    if missing is not None and missing not in IMPUTATIONS:
        raise ParameterError("unknown missing=", where=name, expected=f"one of {', '.join(IMPUTATIONS)}", got=missing)
    report = list(report)
    columns = {column.name: column for column in read.columns if column.kind != "dropped" and column.name not in drop}
    chosen = None if targets is not None or target is False else choose_target(list(columns), target, name, report)
    inputs = [each for each in columns if each != chosen]
    if trained is not None:
        inputs = _trained_inputs(inputs, columns, trained, read)
    if not inputs:
        raise DataError(
            "there is no column to predict from",
            where=name,
            expected="at least one column beside the target",
            got=f"columns {', '.join(map(repr, columns))}",
            hint="delimiter= says how the columns are separated",
        )
    for each in inputs:
        if trained is None:
            _check_input(columns[each], read, categorical, report)
    rows = _complete_rows(read, [columns[each] for each in inputs], columns.get(chosen or ""), missing, report, trained)
    y: Any = targets if targets is None or rows is None else targets[rows]
    labels: Sequence[str] | None = None
    if chosen is not None:
        y = read.table.column(chosen)
        y = y if rows is None else y[rows]
        if columns[chosen].kind == "text":
            _check_mixed(columns[chosen], read, allowed=task == "classification")
            order = sorted({columns[chosen].levels[code] for code in np.unique(y)})
            rank = {level: i for i, level in enumerate(order)}
            y = np.array([rank.get(level, -1) for level in columns[chosen].levels])[y]
            labels = order
    return Dataset(
        read.table,
        y,
        name=name,
        task=task,
        classes=classes,
        labels=labels,
        feature_names=inputs,
        target_names=[chosen] if chosen is not None else [],
        missing=None if missing == "drop" else missing,
        report=report,
        rows=rows,
        ignored=[*drop, *([chosen] if chosen else [])],
        fingerprint=fingerprint,
        need_classes=need_classes,
    )


def choose_target(names: list[str], target: str | int | bool | None, where: str, report: list[str]) -> str:
    """The target column: the one asked for, else one called as targets are, else the last."""
    if isinstance(target, str) and target not in names and re.fullmatch(r"-?\d+", target):
        target = int(target)
    if isinstance(target, str):
        if target not in names:
            raise unknown("column", target, names, where=where)
        return target
    if isinstance(target, int) and not isinstance(target, bool):
        if not -len(names) <= target < len(names):
            raise ParameterError(
                "there is no such column", where=where, expected=f"target from 0 to {len(names) - 1}", got=target
            )
        return names[target]
    if len(names) < 2:
        raise DataError(
            "there is only one column",
            where=where,
            expected="at least one column to predict from and one to predict",
            got=f"{names[0]!r}" if names else "nothing",
            hint="delimiter= says how the columns are separated",
        )
    called = [name for name in names if name.lower() in TARGET_NAMES]
    if len(called) > 1:
        raise DataError(
            "several columns could be the target",
            where=where,
            expected="target=NAME",
            got=", ".join(map(repr, called)),
        )
    if called:
        report.append(f"the target is column {called[0]!r}, by its name (target= chooses another)")
        return called[0]
    report.append(
        f"no column is called target, label or class: the last, {names[-1]!r}, is the target (target= chooses another)"
    )
    return names[-1]


def _trained_inputs(
    inputs: list[str], columns: dict[str, Column], trained: Mapping[str, str], read: ReadTable
) -> list[str]:
    absent = [name for name in trained if name not in inputs]
    if absent:
        raise DataError(
            f"{('columns {} are' if absent[1:] else 'column {} is').format(', '.join(map(repr, absent)))} missing",
            where=read.where,
            expected=f"the columns of the training data: {', '.join(trained)}",
            got=", ".join(column.name for column in read.columns),
        )
    for name, kind in trained.items():
        column = columns[name]
        if kind == "numeric" and column.kind == "text":
            odd = next(i for i, level in enumerate(column.levels) if not is_number(level))
            raise DataError(
                f"column {name!r} held numbers in the training data",
                where=f"{read.where}, {read.unit} {column.first[odd]}",
                expected="a number",
                got=repr(column.levels[odd]),
            )
        _check_infinite(column, read)
    return list(trained)


def _check_mixed(column: Column, read: ReadTable, *, allowed: bool) -> None:
    """A column of numbers with a few texts in it is more likely damaged than categorical."""
    grouped = [bool(_GROUPED.fullmatch(level.strip())) for level in column.levels]
    numbers = [
        group or is_number(level.replace(",", ".", 1)) for level, group in zip(column.levels, grouped, strict=True)
    ]
    count = sum(column.counts)
    numeric = sum(n for n, is_number in zip(column.counts, numbers, strict=True) if is_number)
    if allowed or not 0 < count < 2 * numeric:
        return
    if numeric == count:
        commas = [(level, group) for level, group in zip(column.levels, grouped, strict=True) if not is_number(level)]
        example = commas[0][0]
        what, hint = "with a decimal comma", "decimal=',' reads them"
        thousands = next((level for level, _ in commas if level.count(",") > 1 or "." in level), None)
        if thousands is not None:
            what, hint, example = "with commas between the thousands", "remove the thousands commas", thousands
        elif all(group for _, group in commas):
            what = "whose commas may mark thousands or decimals"
            hint = "remove the commas if they mark thousands; if decimals, decimal=',' reads them"
        raise DataError(
            f"column {column.name!r} holds numbers {what}",
            where=read.where,
            expected="digits with nothing but a decimal point",
            got=repr(example),
            hint=hint,
        )
    odd = [i for i, is_number in enumerate(numbers) if not is_number]
    raise DataError(
        f"column {column.name!r} holds {numeric:,} numbers, but also text in {count - numeric:,} rows",
        where=f"{read.where}, {read.unit} {column.first[odd[0]]}",
        expected="numbers, or one of NA, N/A, NaN, null, ? or nothing where a value is missing",
        got=", ".join(f"{column.levels[i]!r} ({read.unit} {column.first[i]})" for i in odd[:PLACES]),
        hint=f"mend the rows, or take the column as categories: categorical=[{column.name!r}]",
    )


def _check_input(column: Column, read: ReadTable, categorical: Collection[str], report: list[str]) -> None:
    _check_infinite(column, read, f"mend the rows, or drop=[{column.name!r}] leaves the column out")
    if column.kind == "date":
        report.append(f"column {column.name!r} holds dates: kept as days since 1970-01-01")
    if column.kind != "text":
        if counts_rows(read.table, column.name):
            report.append(f"column {column.name!r} only counts the rows; drop=[{column.name!r}] leaves it out")
        return
    if column.name in categorical:
        return
    _check_mixed(column, read, allowed=False)
    count, distinct = sum(column.counts), len(column.levels)
    examples = ", ".join(map(repr, column.levels[:PLACES]))
    mend = f"drop=[{column.name!r}] leaves it out, categorical=[{column.name!r}] keeps it as categories, "
    mend += f"text={column.name!r} learns from what it says"
    if distinct == count > FEW_LEVELS // 2:
        raise DataError(
            f"column {column.name!r} holds a different text in every row, as a name or an id does",
            where=read.where,
            expected="numbers, or categories that come back",
            got=f"{examples}, …",
            hint=mend,
        )
    if distinct > MANY_LEVELS or (distinct > FEW_LEVELS and 2 * distinct > count):
        raise DataError(
            f"column {column.name!r} holds {distinct:,} different texts in {count:,} rows",
            where=read.where,
            expected=f"numbers, or at most {MANY_LEVELS} categories",
            got=f"{examples}, …",
            hint=mend,
        )
    report.append(f"column {column.name!r} is categorical: {distinct} different texts")


def _check_infinite(column: Column, read: ReadTable, hint: str = "mend or remove the rows") -> None:
    if column.infinite:
        raise DataError(
            f"column {column.name!r} holds {counted(column.infinite, 'infinite value', 'infinite values')}",
            where=f"{read.where}, {read.unit} {', '.join(map(str, column.infinite_at))}",
            expected="finite numbers",
            hint=hint,
        )


def counts_rows(table: Table, name: str) -> bool:
    """Whether a column of numbers only counts the rows, from 0 or from 1."""
    count = len(table)
    head = table.take(slice(0, 1000), [name])[name]
    tail = table.take(slice(count - 1, count), [name])[name]
    return bool(
        count > 2
        and head[0] in (0, 1)
        and (head == head[0] + np.arange(len(head))).all()
        and tail[0] == head[0] + count - 1
    )


def _complete_rows(
    read: ReadTable,
    inputs: list[Column],
    target: Column | None,
    missing: str | None,
    report: list[str],
    trained: Mapping[str, str] | None,
) -> np.ndarray | None:
    """The rows that can be used, None for all of them.

    Raises:
        DataError: values are missing and nobody said what to do; a missing target is never invented.
    """
    if target is not None:
        _check_infinite(target, read)
    lacking = [column for column in inputs if column.missing]
    if target is not None and target.missing and missing != "drop":
        raise DataError(
            f"column {target.name!r}, the target, is missing in {counted(target.missing, 'row', 'rows')}",
            where=f"{read.where}, {read.unit} {', '.join(map(str, target.missing_at))}",
            expected="a target in every row: it is never filled in",
            hint="missing='drop' leaves such rows out",
        )
    if lacking and missing is None:
        counts = "; ".join(
            f"{column.name!r}: {column.missing:,} (first at {read.unit} {', '.join(map(str, column.missing_at))})"
            for column in lacking
        )
        raise DataError(
            f"{counted(sum(column.missing for column in lacking), 'value is', 'values are')} missing",
            where=read.where,
            expected="a value in every row, or missing= 'mean', 'median', 'most_frequent' or 'drop'",
            got=counts,
            hint="missing='median' fills them in from the training rows; missing='drop' leaves such rows out",
        )
    if missing != "drop" or not (lacking or (target is not None and target.missing)):
        if lacking:
            total = counted(sum(column.missing for column in lacking), "missing value is", "missing values are")
            how = f"from the training rows ({missing})" if trained is None else "as in training"
            report.append(f"{total} filled in {how}")
        return None
    used = [column.name for column in inputs] + ([target.name] if target is not None else [])
    keep = np.ones(len(read.table), bool)
    for chunk in row_chunks(len(read.table), row_bytes(read.table.numeric) + row_bytes(read.table.codes)):
        for values in read.table.take(chunk, used).values():
            keep[chunk] &= ~np.isnan(values) if values.dtype.kind == "f" else values != ""
    report.append(f"{int((~keep).sum()):,} of {len(keep):,} rows left out because a value is missing")
    return np.flatnonzero(keep)
