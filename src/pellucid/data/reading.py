"""From a file or a folder to a `Dataset`: which reader it needs, and what is decided on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.data import arrays, delimited, images, parquet
from pellucid.data.dataset import Dataset
from pellucid.data.preprocessor import Preprocessor
from pellucid.data.storage import CHUNK_BYTES, MEMORY_LIMIT, Rows, Shelf, data_home, sha256_of_file, sha256_of_files
from pellucid.data.tables import Column, choose_target, counts_rows, make_dataset, read_table
from pellucid.data.ts import read_ts
from pellucid.errors import DataError, ParameterError, counted, unknown
from pellucid.sequences import Sequences


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be said about a source; every entry is optional, and what is not said is found out and reported.

    Arguments:
        target: the target column by name or index; False for none; or a file that holds the targets.
        task: ``"classification"`` or ``"regression"``.
        name: what to call the data.
        delimiter, header, encoding, decimal: how a text file is written.
        categorical: columns to take as categories, also when they hold numbers.
        text: the column of texts to learn from; of the others only the target is used.
        column_names: names of the first columns of a text file, in place of those in the file or made up.
        drop: columns to leave out.
        missing: ``"mean"``, ``"median"``, ``"most_frequent"`` (fitted on the training rows) or ``"drop"`` (the rows).
        dates: ``"numeric"`` takes dates as days since 1970-01-01.
        images: whether arrays hold images, or their layout ``"HW"``, ``"HWC"`` or ``"CHW"``.
        image_size: (height, width) that images are brought to.
        channels: ``"grey"`` or ``"rgb"``.
        keys: which arrays of a NPZ archive hold inputs and targets (and those of the test set).
        like: the preprocessor of a trained network that the data must fit; the targets may then be absent, and image
            files are brought to the size and the channels of training.
        memory_limit: bytes of one array that are kept in memory; larger ones go to files in the data home.
        chunk_bytes: how much of a text file is read at once.
    """

    target: str | int | bool | Path | None = None
    task: str | None = None
    name: str | None = None
    delimiter: str | None = None
    header: bool | None = None
    encoding: str | None = None
    decimal: str | None = None
    categorical: Sequence[str] = ()
    text: str | None = None
    column_names: Sequence[str] = ()
    drop: Sequence[str] = ()
    missing: str | None = None
    dates: str | None = None
    images: bool | str | None = None
    image_size: tuple[int, int] | None = None
    channels: str | None = None
    keys: Sequence[str] | None = None
    like: Preprocessor | None = None
    memory_limit: int = MEMORY_LIMIT
    chunk_bytes: int = CHUNK_BYTES


def read(path: Path, options: Options) -> Dataset:
    """The data set in a file or a folder.

    Raises:
        DataError: it cannot be read, or not without being told more.
        ParameterError: an option that does not fit.
    """
    for option in ("categorical", "column_names", "drop"):
        if isinstance(getattr(options, option), str):
            raise ParameterError(f"{option}= takes a list of columns", got=repr(getattr(options, option)))
    if options.dates not in (None, "numeric"):
        raise ParameterError("unknown dates=", expected="'numeric'", got=repr(options.dates))
    if path.is_dir():
        return _read_folder(path, options)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _read_npz(path, options)
    if suffix == ".npy":
        return _read_npy(path, options)
    if options.like is not None and options.like.kind == "text":
        if suffix == ".txt":
            return _read_lines(path, options)
        options = replace(options, text=options.text or next(iter(options.like.columns), None))
    if suffix == ".ts":
        return _read_ts(path, options)
    if arrays.is_idx(path):
        return _read_idx_file(path, options)
    if suffix in images.ENDINGS:
        return _read_images([path], None, None, path, options)
    return _read_table_file(path, options)


def _place(path: Path, options: Options, *more: Any) -> tuple[Path, str]:
    """The folder for what is made of ``path``, and the state of ``path``."""
    key = hashlib.sha256(repr((str(path.resolve()), *more)).encode()).hexdigest()[:24]
    state = path.stat()
    return data_home() / "converted" / key, f"{state.st_size} {state.st_mtime_ns}"


def _shelf(path: Path, options: Options, *more: Any) -> Shelf:
    return Shelf(*_place(path, options, *more), options.memory_limit)


def _read_table_file(path: Path, options: Options) -> Dataset:
    name, like = options.name or path.name, options.like
    trained = None
    if like is not None and like.kind == "table":
        trained = {**dict.fromkeys(like.columns, "numeric"), **dict.fromkeys(like.levels, "text")}
    elif like is not None and like.kind == "image":
        raise DataError("the network was trained on images", where=str(path), expected="images", got="a table")
    report: list[str] = []
    targets = None
    target = options.target
    if (file := _target_file(target)) is not None:
        targets = read_targets(file, options)
        report.append(f"the targets are read from {file.name}")
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    dialect = None
    opened = None
    if is_parquet:
        opened = parquet.open_parquet(path)
        names = list(opened.schema_arrow.names)
    else:
        dialect = delimited.sniff(
            path,
            delimiter=options.delimiter,
            header=options.header,
            encoding=options.encoding,
            decimal=options.decimal,
            columns=list(trained) if trained else [options.text] if like is not None and options.text else None,
        )
        dialect.names[: len(options.column_names)] = options.column_names
        names = dialect.names
        report += dialect.report
        if dialect.classes is not None and target is None:
            target = names[-1]
    if options.text is not None:
        if options.text not in names:
            raise unknown("column", options.text, names, where=f"{path}, text=")
        if like is not None and target is None:
            target = next((each for each in like.target_names if each in names), False)
        elif targets is None and target is not False and not isinstance(target, Path):
            rest = [each for each in names if each != options.text]
            target = choose_target([options.text, *rest], target, name, report)
        others = [each for each in names if each not in (options.text, target)]
        options = replace(options, categorical=[options.text], drop=others)
    for option, asked in (("drop", options.drop), ("categorical", options.categorical)):
        for each in asked:
            if each not in names:
                raise unknown("column", each, names, where=f"{path}, {option}=")
    if trained is not None and like is not None:
        if target is None:
            target = next((each for each in like.target_names if each in names), False)
        extra = [each for each in names if each not in trained and each not in like.ignored and each != target]
        if extra:
            report.append(f"not used, because the training data had no such column: {', '.join(map(repr, extra))}")
    columns = []
    for each in names:
        if trained is not None:
            kind = "text" if trained.get(each) == "text" else "" if each in trained or each == target else "dropped"
        else:
            kind = "dropped" if each in options.drop else "text" if each in options.categorical else ""
        columns.append(Column(each, kind))
    folder, stamp = _place(path, options, dialect, options.dates, [(each.name, each.kind) for each in columns])
    read = read_table(
        (lambda builder: parquet.fill(builder, opened))
        if dialect is None
        else (lambda builder: delimited.fill(builder, path, dialect, options.chunk_bytes)),
        columns,
        unit="row" if is_parquet else "line",
        where=str(path),
        folder=folder,
        stamp=stamp,
        memory_limit=options.memory_limit,
        dates="numeric" if trained is not None else options.dates,
        decimal=dialect.decimal if dialect is not None else ".",
        asked=options.categorical if trained is None else [each for each, kind in trained.items() if kind == "text"],
    )
    if read.notes["blank"]:
        report.append(f"{counted(read.notes['blank'], 'blank line is', 'blank lines are')} skipped")
    drop = list(options.drop)
    first = names[0]
    if dialect is not None and dialect.header and first == "column 1" and trained is None and first != target:
        kinds = {column.name: column.kind for column in read.columns}
        if kinds[first] == "numeric" and counts_rows(read.table, first):
            report.append("the first column has no name and counts the rows: it is not used")
            drop.append(first)
    if targets is not None and len(targets) != len(read.table):
        raise DataError(
            "inputs and targets differ in number",
            where=str(path),
            expected=f"{len(read.table):,} targets, one for each row",
            got=f"{len(targets):,} in {file}",
        )
    missing = options.missing
    if like is not None and missing is None and (like.fill is not None or like.fill_level):
        missing = "most_frequent" if like.fill is None else "mean"
    dataset = make_dataset(
        read,
        name=name,
        target=target if not isinstance(target, Path) else None,
        targets=targets,
        task=options.task or (like.task if like is not None else None),
        classes=dialect.classes if dialect is not None and targets is None else None,
        categorical=options.categorical,
        drop=drop,
        missing=missing,
        report=report,
        fingerprint=lambda: sha256_of_file(path),
        trained=trained,
        need_classes=like is None,
    )
    if options.text is None:
        return dataset
    x, y = dataset.take(slice(None))
    return Dataset(
        x[options.text],
        y,
        name=name,
        task=dataset.task,
        feature_names=[options.text],
        target_names=dataset.target_names,
        report=[*dataset.report, f"the texts are those of column {options.text!r}"],
        fingerprint=lambda: sha256_of_file(path),
        need_classes=like is None,
    )


def read_column(
    path: Path, column: str | int | None = None, delimiter: str | None = None
) -> tuple[str, np.ndarray, list[str]]:
    """A column of numbers of a table, in the order of its rows; of the others nothing is asked.

    Arguments:
        path: CSV, TSV (also compressed) or Parquet.
        column: its name or index; None for the only one, or for the one that is called as targets are, or the last.
        delimiter: between the columns.

    Returns:
        Its name, its values (rows,) float64 with NaN where there is none, and sentences on what was decided.

    Raises:
        DataError: no table, or a column that holds no numbers.
        ParameterError: a column that is not there.
    """
    dialect, opened, report = None, None, []
    if path.suffix.lower() in (".parquet", ".pq"):
        opened = parquet.open_parquet(path)
        names = list(opened.schema_arrow.names)
    else:
        dialect = delimited.sniff(path, delimiter=delimiter)
        names, report = dialect.names, dialect.report
    alone = column is None and len(names) == 1
    chosen = names[0] if alone else choose_target(names, column, str(path), report)
    options = Options()
    folder, stamp = _place(path, options, dialect, "column", chosen)
    read = read_table(
        (lambda builder: parquet.fill(builder, opened))
        if dialect is None
        else (lambda builder: delimited.fill(builder, path, dialect, options.chunk_bytes)),
        [Column(name, "" if name == chosen else "dropped") for name in names],
        unit="line" if opened is None else "row",
        where=str(path),
        folder=folder,
        stamp=stamp,
        memory_limit=options.memory_limit,
        dates="numeric",
        decimal="." if dialect is None else dialect.decimal,
    )
    kind = next(each.kind for each in read.columns if each.name == chosen)
    if kind != "numeric":
        others = ", ".join(name for name in names if name != chosen)
        raise DataError(
            f"column {chosen!r} holds no numbers",
            where=str(path),
            expected="a number in each row",
            got={"date": "dates", "text": "texts"}.get(kind, "nothing"),
            hint=f"target= chooses another: {others}" if others else None,
        )
    return chosen, np.asarray(read.table.column(chosen), np.float64), report


def _read_lines(path: Path, options: Options) -> Dataset:
    lines = [line for line in path.read_text(encoding=options.encoding or "utf-8").splitlines() if line.strip()]
    report = ["each line is a text"]
    return Dataset(lines, name=options.name or path.name, report=report, fingerprint=lambda: sha256_of_file(path))


def _target_file(target: Any) -> Path | None:
    if isinstance(target, Path) or (isinstance(target, str) and Path(target).suffix and Path(target).is_file()):
        return Path(target)
    return None


def read_targets(path: Path, options: Options) -> np.ndarray:
    """Targets in a file of their own: NPY, IDX, or text with one column.

    Raises:
        DataError: more than one column, missing values.
    """
    if not path.exists():
        raise DataError("there is no such file of targets", where=str(path))
    if path.suffix.lower() == ".npy":
        return np.asarray(arrays.read_npy(path, options.memory_limit)[:])
    if arrays.is_idx(path):
        return np.asarray(arrays.read_idx([path]))
    dialect = delimited.sniff(path, encoding=options.encoding)
    folder, stamp = _place(path, options, dialect, "targets")
    read = read_table(
        lambda builder: delimited.fill(builder, path, dialect, options.chunk_bytes),
        [Column(name) for name in dialect.names],
        unit="line",
        where=str(path),
        folder=folder,
        stamp=stamp,
        memory_limit=options.memory_limit,
    )
    column = read.columns[0]
    if len(read.columns) > 1:
        raise DataError(
            "a file of targets has one column",
            where=str(path),
            expected="one column",
            got=f"{len(read.columns)}: {', '.join(each.name for each in read.columns)}",
        )
    if column.missing:
        raise DataError(
            f"{counted(column.missing, 'target is', 'targets are')} missing",
            where=f"{path}, line {', '.join(map(str, column.missing_at))}",
        )
    values = read.table.column(column.name)
    return np.array(column.levels)[values] if column.kind == "text" else values


def _from_arrays(x: Rows | Sequences, y: Any, path: Path, options: Options, report: list[str], **more: Any) -> Dataset:
    if options.missing == "drop":
        raise ParameterError(
            "missing='drop' is for tables", where=str(path), expected="'mean', 'median' or 'most_frequent'"
        )
    return Dataset(
        x,
        y,
        name=options.name or path.name,
        task=options.task or (options.like.task if options.like is not None and y is not None else None),
        images=options.images,
        missing=options.missing or ("mean" if options.like is not None and options.like.fill is not None else None),
        report=report,
        need_classes=options.like is None,
        **more,
    )


def _read_npz(path: Path, options: Options) -> Dataset:
    x, y, test, names = arrays.read_npz(path, keys=options.keys, shelf=_shelf(path, options, options.keys))
    report = ["x_test and y_test are the official test set"] if test else []
    return _from_arrays(
        x,
        y,
        path,
        options,
        report,
        test_rows=np.arange(len(x) - test, len(x)) if test else None,
        classes=names.get("target_names"),
        feature_names=names.get("feature_names"),
        fingerprint=lambda: sha256_of_file(path),
    )


def _read_npy(path: Path, options: Options) -> Dataset:
    x = arrays.read_npy(path, options.memory_limit)
    fingerprint = lambda: sha256_of_file(path)  # noqa: E731
    file = _target_file(options.target)
    if file is not None or options.target is False or (options.like is not None and options.like.kind != "table"):
        y = read_targets(file, options) if file is not None else None
        return _from_arrays(x, y, path, options, [], fingerprint=fingerprint)
    if x.ndim != 2 or x.dtype.kind not in "fiub":
        raise DataError(
            "this array holds no targets",
            where=str(path),
            expected="a table of numbers (m, columns), or target='y.npy' for the targets",
            got=f"shape {x.shape}, {x.dtype}",
        )
    numbers = x[:] if x.dtype.kind == "f" else x[:].astype(np.float64)
    columns = [Column(f"column {i}", "numeric") for i in range(1, numbers.shape[1] + 1)]

    def fill(builder: Any) -> dict[str, Any]:
        for start in range(0, len(numbers), 4096):
            block = numbers[start : start + 4096]
            builder.add(list(block.T), np.arange(start, start + len(block)))
        return {"rows": len(numbers), "blank": 0}

    folder, stamp = _place(path, options)
    read = read_table(
        fill, columns, unit="row", where=str(path), folder=folder, stamp=stamp, memory_limit=options.memory_limit
    )
    return make_dataset(
        read,
        name=options.name or path.name,
        target=options.target if not isinstance(options.target, Path) else None,
        task=options.task,
        drop=options.drop,
        missing=options.missing,
        fingerprint=fingerprint,
    )


def _read_ts(path: Path, options: Options) -> Dataset:
    x, labels = read_ts(path)
    y = None if labels is None or options.target is False else np.array(labels)
    return _from_arrays(Sequences(x), y, path, options, [], fingerprint=lambda: sha256_of_file(path))


def _read_idx_file(path: Path, options: Options) -> Dataset:
    labels = _target_file(options.target) or arrays.labels_beside(path)
    if labels is None and options.like is None and options.target is not False:
        raise DataError(
            "there are no labels beside this file",
            where=str(path),
            expected=f"{path.name.replace('images', 'labels').replace('idx3', 'idx1')}",
            hint="target= names the file of labels",
        )
    y = None if labels is None or options.target is False else read_targets(labels, options)
    report = [] if y is None or labels is None else [f"the labels are read from {labels.name}"]
    x = arrays.read_idx([path], _shelf(path, options))
    return _from_arrays(x, y, path, options, report, fingerprint=lambda: sha256_of_file(path))


def read_idx_folder(
    path: Path, options: Options, *, classes: Sequence[str] | None = None, report: Sequence[str] = ()
) -> Dataset:
    """A folder with ``train-images``, ``train-labels`` and, as official test set, ``t10k-images``, ``t10k-labels``."""
    files = arrays.idx_files(path)
    if not {"train-images", "train-labels"} <= set(files) or ("t10k-images" in files) != ("t10k-labels" in files):
        raise DataError(
            "IDX files are missing",
            where=str(path),
            expected="train-images, train-labels, and both or none of t10k-images, t10k-labels",
            got=", ".join(file.name for file in files.values()),
        )
    parts = ["train", "t10k"] if "t10k-images" in files else ["train"]
    y = [read_targets(files[f"{part}-labels"], options) for part in parts]
    x = arrays.read_idx([files[f"{part}-images"] for part in parts], _shelf(path, options))
    report = [*report, *(["the t10k files are the official test set"] if len(parts) == 2 else [])]
    return _from_arrays(
        x,
        np.concatenate(y),
        path,
        options,
        list(report),
        classes=classes,
        test_rows=np.arange(len(y[0]), len(x)) if len(parts) == 2 else None,
        fingerprint=lambda: sha256_of_files(files.values(), path),
    )


def _read_folder(path: Path, options: Options) -> Dataset:
    if arrays.idx_files(path):
        return read_idx_folder(path, options)
    report: list[str] = []
    if (options.like is not None or options.target is False) and (files := images.image_files(path)):
        return _read_images(files, None, None, path, options)
    files, labels, test = images.list_classes(path, report)
    if not files:
        raise DataError(
            "nothing in this folder can be read",
            where=str(path),
            expected="one folder of images for each class, below train/ and test/ or not; one of .wav files for each "
            "word; or MNIST-style IDX files",
            got=", ".join(sorted(each.name for each in path.iterdir())[:10]) or "an empty folder",
            hint="give the file itself for CSV, Parquet, NPZ or NPY",
        )
    return _read_images(files, labels, test, path, options, report)


def _read_images(
    files: Sequence[Path],
    labels: Sequence[str] | None,
    test: int | None,
    path: Path,
    options: Options,
    report: Sequence[str] = (),
) -> Dataset:
    channels, image_size = options.channels, options.image_size
    if options.like is not None and options.like.kind == "image":
        count, *size = options.like.input_shape
        channels = channels or ("grey" if count == 1 else "rgb")
        image_size = image_size or (size[0], size[1])
    said = list(report)
    root = path if path.is_dir() else path.parent
    state = [(file.relative_to(root).as_posix(), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    folder, _ = _place(path, options, channels, image_size)
    shelf = Shelf(folder, hashlib.sha256(repr(state).encode()).hexdigest(), options.memory_limit)
    x = images.read_images(files, channels=channels, image_size=image_size, shelf=shelf, report=said)
    if test:
        said.append("the images below test are the official test set")
    return _from_arrays(
        x,
        None if labels is None else np.array(labels),
        path,
        replace(options, images="CHW"),
        said,
        test_rows=np.arange(len(files) - test, len(files)) if test else None,
        fingerprint=lambda: sha256_of_files(files, root),
    )
