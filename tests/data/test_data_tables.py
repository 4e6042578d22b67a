"""Tables: what a delimited or Parquet file holds is found out, said, and either right or refused with its place."""

from __future__ import annotations

import csv
import gzip
import io
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pellucid.data import Preprocessor, load
from pellucid.data.storage import FileRows
from pellucid.errors import DataError, ParameterError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def write(tmp_path):
    def write(text, name="some.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
        return path

    return write


def everything(ds):
    return ds.take(np.arange(len(ds)))


PLAIN = "a,b,label\n1,2,yes\n3,4.5,no\n-5,6e2,yes\n"


def test_reads_columns_labels_and_says_what_it_decided(write):
    ds = load(write(PLAIN))
    x, y = everything(ds)
    assert len(ds) == 3
    assert ds.task == "classification"
    assert ds.classes == ["no", "yes"]
    assert ds.feature_names == ["a", "b"]
    assert x["a"].tolist() == [1, 3, -5]
    assert x["b"].tolist() == [2, 4.5, 600]
    assert y.tolist() == ["yes", "no", "yes"]
    assert ds.y.tolist() == [1, 0, 1]
    said = " ".join(ds.report)
    assert "commas" in said
    assert "first line names the columns" in said
    assert "'label', by its name" in said
    assert "classification" in said


def test_take_gives_the_rows_asked_for_in_their_order(write):
    x, y = load(write(PLAIN)).take([2, 0, 2])
    assert x["a"].tolist() == [-5, 1, -5]
    assert y.tolist() == ["yes", "yes", "yes"]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", " "])
@pytest.mark.parametrize("given_delimiter", [False, True])
def test_delimiters_are_sniffed_or_given(write, delimiter, given_delimiter):
    path = write(PLAIN.replace(",", delimiter))
    ds = load(path, delimiter=delimiter) if given_delimiter else load(path)
    assert everything(ds)[0]["b"].tolist() == [2, 4.5, 600]
    assert ds.y.tolist() == [1, 0, 1]


def test_spaces_after_the_delimiter(write):
    ds = load(write('a, b, label\n1, "x, y", u\n2, z, v\n3, z, u\n'))
    assert ds.feature_names == ["a", "b"]
    assert everything(ds)[0]["b"].tolist() == ["x, y", "z", "z"]


def test_runs_of_spaces_separate_once(write):
    ds = load(write("  1   2  0 \n  30  4  1 \n 5 60  0\n"))
    x, y = everything(ds)
    assert x["column 1"].tolist() == [1, 30, 5]
    assert x["column 2"].tolist() == [2, 4, 60]
    assert y.tolist() == [0, 1, 0]


def test_decimal_comma_with_semicolons_is_found_and_said(write):
    ds = load(write("a;b;y\n1,5;2,25;0\n3,5;4,75;1\n2,5;0,5;1\n"))
    assert everything(ds)[0]["b"].tolist() == [2.25, 4.75, 0.5]
    assert "decimal comma" in " ".join(ds.report)


def test_decimal_comma_within_quotes_is_pointed_out(write):
    text = "a,y\n" + "".join(f'"{i},5",{i % 2}\n' for i in range(30)) + "1.5,0\n"
    with pytest.raises(DataError, match=r"decimal comma(.|\n)*decimal=','"):
        load(write(text), delimiter=",")


@pytest.mark.parametrize(
    ("cells", "words", "not_said"),
    [
        (["118,284", "7,000", "5"], ["may mark thousands or decimals", "remove the commas", "decimal=','"], "between"),
        (["118,284", "1,118,284"], ["between the thousands", "'1,118,284'", "remove the thousands"], "decimal="),
        (["118,284", "1,284.5"], ["between the thousands", "'1,284.5'", "remove the thousands"], "decimal="),
        (["118,284", "0,284"], ["decimal comma", "decimal=','"], "thousands"),
        (["118,284", "11,28"], ["decimal comma", "decimal=','"], "thousands"),
    ],
)
def test_commas_before_three_digits_are_not_taken_for_decimal_marks(write, cells, words, not_said):
    rows = "".join(f'"{cells[i % len(cells)]}",{i % 2}\n' for i in range(30))
    with pytest.raises(DataError) as error:
        load(write("a,y\n" + rows))
    assert all(word in str(error.value) for word in words), error.value
    assert not_said not in str(error.value)


def test_quotes_hold_delimiters_newlines_and_quotes(write):
    text = 'text,"the\nnumber",label\n"a,b",1,"x\ny"\n"say ""yes""",2,z\n"a,b",3,z\n'
    ds = load(write(text))
    x, y = everything(ds)
    assert ds.feature_names == ["text", "the\nnumber"]
    assert x["text"].tolist() == ["a,b", 'say "yes"', "a,b"]
    assert y.tolist() == ["x\ny", "z", "z"]


def test_places_count_lines_also_after_quoted_newlines(write):
    text = 'text,n,label\n"a\nb",1,x\nc,2,y\nc,3\n'
    with pytest.raises(DataError, match="line 5: 1 row does not have 3 cells"):
        load(write(text))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_unicode_with_or_without_mark(write, encoding):
    ds = load(write("größe,이름,label\n1,가,é\n2,나,ß\n3,가,é\n", encoding=encoding))
    assert ds.feature_names == ["größe", "이름"]
    assert everything(ds)[0]["이름"].tolist() == ["가", "나", "가"]
    assert ds.classes == ["ß", "é"]


def test_other_encodings_are_refused_with_the_line_and_read_when_named(write):
    path = write("name,label\n" + "a,1\nb,0\n" * 50 + "caf\xe9,1\n", encoding="latin-1")
    with pytest.raises(DataError, match=r"line 102: this is not utf-8 text(.|\n)*encoding=(.|\n)*latin-1"):
        load(path, chunk_bytes=64)
    assert "café" in load(path, encoding="latin-1").levels("name")
    with pytest.raises(DataError, match="encoding='utf-16'"):
        load(write("a,label\n1,2\n", encoding="utf-16"))
    with pytest.raises(ParameterError, match="unknown encoding"):
        load(path, encoding="klingon")


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_compressed_files(tmp_path, suffix):
    import bz2
    import lzma

    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix](PLAIN.encode())
    path = tmp_path / f"some.csv{suffix}"
    path.write_bytes(packed)
    assert everything(load(path))[0]["a"].tolist() == [1, 3, -5]
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"damaged|cannot be read"):
        load(path)


def test_header_is_found_or_given(write):
    assert load(write("1,2\n3,4\n5,6\n")).feature_names == ["column 1"]
    assert len(load(write("1,2\n3,4\n5,6\n"))) == 3
    years = write("2001,2002,2003\n1.5,2.5,3.5\n4.5,5.5,7.5\n1.0,2.0,9.5\n")
    assert len(load(years)) == 4
    ds = load(years, header=True)
    assert (len(ds), ds.feature_names) == (3, ["2001", "2002"])
    words = write("colour,taste,label\nred,sweet,a\ngreen,sour,b\nred,sour,a\n")
    assert load(words).feature_names == ["colour", "taste"]
    no_words = write("red,sweet,a\ngreen,sour,b\nred,sour,a\n")
    assert len(load(no_words)) == 3
    assert len(load(no_words, header=False)) == 3
    ds = load(no_words, header=True)
    assert (len(ds), ds.feature_names) == (2, ["red", "sweet"])


def test_two_columns_of_one_name_are_refused(write):
    with pytest.raises(DataError, match=r"two columns have the same name(.|\n)*'a'"):
        load(write("a,a,label\n1,2,3\n4,5,6\n"))


def test_a_column_that_only_counts_the_rows(write):
    ds = load(write(",a,y\n0,5,1.5\n1,6,2.5\n2,8,3.7\n3,9,4.1\n"))
    assert ds.feature_names == ["a"]
    assert "counts the rows: it is not used" in " ".join(ds.report)
    named = load(write("Id,a,y\n1,5,1.5\n2,6,2.5\n3,8,3.7\n"))
    assert named.feature_names == ["Id", "a"]
    assert "drop=['Id']" in " ".join(named.report)


def test_blank_lines_are_counted(write):
    ds = load(write("a,y\n1,2.5\n\n3,4.5\n\n"))
    assert len(ds) == 2
    assert "2 blank lines" in " ".join(ds.report)


def test_ragged_rows_are_reported_with_lines_never_dropped(write):
    rows = [f"{i},{i}.5,{i % 2}" for i in range(100)]
    rows[10] = "1,2"
    rows[50] = "1,2,3,4"
    for chunk in (40, 2**20):
        with pytest.raises(
            DataError, match=r"line 12, 52: 2 rows do not have 3 cells(.|\n)*got: +2 \(line 12\), 4 \(line 52\)"
        ):
            load(write("a,b,label\n" + "\n".join(rows)), chunk_bytes=chunk)


def test_lines_that_look_like_comments(write):
    with pytest.raises(DataError, match=r"lines that begin with # are no comments"):
        load(write("# made by hand\nx,y\n1,2.5\n2,3.5\n"))


def test_row_names_without_a_header_cell(write):
    with pytest.raises(DataError, match="one cell more than the header"):
        load(write("a,b\nr1,1,2\nr2,3,4\n"))


def test_an_open_quotation_mark(write):
    with pytest.raises(DataError, match=r"from line 3: a quotation mark is out of place"):
        load(write('a,label\n1,x\n2,"y\n3,x\n'))


@pytest.mark.parametrize("mark", ["", "NA", "N/A", "NaN", "nan", "null", "?", " NULL "])
def test_missing_values_are_counted_and_placed(write, mark):
    path = write(f"a,b,label\n1,u,x\n{mark},v,y\n3,u,y\n{mark},{mark},y\n")
    with pytest.raises(
        DataError, match=r"3 values are missing(.|\n)*'a': 2 \(first at line 3, 5\); 'b': 1 \(first at line 5\)"
    ):
        load(path)
    ds = load(path, missing="drop")
    assert everything(ds)[0]["a"].tolist() == [1, 3]
    assert "2 of 4 rows left out" in " ".join(ds.report)
    kept = load(path, missing="mean")
    assert np.isnan(kept.take([1])[0]["a"][0])
    assert kept.take([3])[0]["b"].tolist() == [""]


def test_a_missing_target_is_never_invented(write):
    path = write("a,label\n1,x\n2,\n3,y\n")
    with pytest.raises(DataError, match=r"line 3: column 'label', the target, is missing in 1 row"):
        load(path, missing="mean")
    ds = load(path, missing="drop")
    assert everything(ds)[1].tolist() == ["x", "y"]


@pytest.mark.parametrize("value", ["inf", "-Infinity", "1e999"])
def test_infinite_values_are_refused_with_their_place(write, value):
    with pytest.raises(DataError, match=r"line 4: column 'a' holds 1 infinite value"):
        load(write(f"a,label\n1,x\n2,y\n{value},x\n"))
    with pytest.raises(DataError, match=r"line 4: column 'y' holds 1 infinite value"):
        load(write(f"a,y\n1,2.5\n2,3.5\n3,{value}\n"))


def test_unknown_missing_and_other_options(write):
    path = write(PLAIN)
    with pytest.raises(ParameterError, match=r"unknown missing=(.|\n)*median"):
        load(path, missing="zero")
    with pytest.raises(ParameterError, match=r"unknown option 'delimeter'(.|\n)*did you mean 'delimiter'"):
        load(path, delimeter=",")
    with pytest.raises(ParameterError, match=r"unknown column 'labl'(.|\n)*did you mean 'label'"):
        load(path, target="labl")
    with pytest.raises(ParameterError, match=r"drop=: unknown column 'c'"):
        load(path, drop=["c"])
    with pytest.raises(ParameterError, match=r"categorical=: unknown column 'c'"):
        load(path, categorical=["c"])
    with pytest.raises(ParameterError, match="drop= takes a list"):
        load(path, drop="a")
    with pytest.raises(ParameterError, match="no such column"):
        load(path, target=7)
    with pytest.raises(ParameterError, match="one character"):
        load(path, delimiter="::")
    with pytest.raises(ParameterError, match="unknown task"):
        load(path, task="ranking")
    with pytest.raises(ParameterError, match="unknown dates="):
        load(path, dates="yes")


def test_which_column_is_the_target(write):
    text = "species,a,b\nx,1,2\ny,3,4\nx,5,7\n"
    assert load(write(text)).feature_names == ["a", "b"]
    assert load(write(text), target="b").feature_names == ["species", "a"]
    assert load(write(text), target=1).feature_names == ["species", "b"]
    assert load(write(text), target="-1").feature_names == ["species", "a"]
    unnamed = load(write("a,b,c\n1,2,3.5\n4,5,6.5\n"))
    assert unnamed.target_names == ["c"]
    assert "the last, 'c', is the target" in " ".join(unnamed.report)
    with pytest.raises(DataError, match=r"several columns could be the target(.|\n)*'class', 'y'"):
        load(write("class,y,a\n1,2,3\n4,5,6\n"))
    none = load(write(text), target=False)
    assert none.take([0])[1] is None
    assert none.feature_names == ["species", "a", "b"]


def test_the_target_in_another_file(write):
    target = write("151\n75.5\n141\n", "target.csv")
    ds = load(write("59 2\n48 1\n72 2\n"), target=str(target))
    assert ds.feature_names == ["column 1", "column 2"]
    assert everything(ds)[1].tolist() == [151, 75.5, 141]
    assert ds.task == "regression"
    words = load(write("59 2\n48 1\n72 2\n"), target=write("b\na\nb\n", "words.txt"))
    assert words.classes == ["a", "b"]
    with pytest.raises(DataError, match=r"differ in number(.|\n)*3 targets(.|\n)*2 in"):
        load(write("59 2\n48 1\n72 2\n"), target=write("1.5\n2.5\n", "short.csv"))
    with pytest.raises(DataError, match="one column"):
        load(write("59 2\n48 1\n72 2\n"), target=write("1,2\n3,4\n5,6\n", "wide.csv"))
    with pytest.raises(DataError, match="1 target is missing"):
        load(write("59 2\n48 1\n72 2\n"), target=write("1\nNA\n3\n", "holes.csv"))
    with pytest.raises(DataError, match="no such file of targets"):
        load(write(PLAIN), target=target.with_name("absent.csv"))


@pytest.mark.parametrize(
    ("targets", "task"),
    [
        ([0, 1, 0, 1], "classification"),
        ([1.0, 2.0, 1.0, 2.0], "classification"),
        ([0.5, 1.5, 0.5, 1.5], "regression"),
        (["no", "yes", "no", "yes"], "classification"),
        ([1, 2, 3, 4], "regression"),
        (list(range(10)) * 10, "classification"),
        (list(range(40)) * 10, "regression"),
    ],
)
def test_the_task_is_inferred_and_overruled(write, targets, task):
    path = write("a,y\n" + "".join(f"{i * 0.5},{value}\n" for i, value in enumerate(targets)))
    ds = load(path)
    assert ds.task == task
    assert task in " ".join(ds.report)
    other = "regression" if task == "classification" else "classification"
    if isinstance(targets[0], str):
        with pytest.raises(DataError, match="targets are not numbers"):
            load(path, task=other)
    else:
        assert load(path, task=other).task == other


def test_one_class_only_and_a_class_for_every_row(write):
    with pytest.raises(DataError, match=r"one class only(.|\n)*every example is 'x'"):
        load(write("a,label\n1,x\n2,x\n"))
    with pytest.raises(DataError, match=r"one class only(.|\n)*every example is '3'"):
        load(write("a,label\n1,3\n2,3\n"))
    with pytest.raises(DataError, match="a class of its own"):
        load(write("a,label\n" + "".join(f"{i},n{i}\n" for i in range(30))))


def test_text_columns_numbers_and_ids(write):
    rows = [(i, ["low", "high"][i % 2], i % 3, f"name{i}", i * 0.5) for i in range(60)]
    text = "size,level,code,who,y\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    with pytest.raises(DataError, match=r"'who' holds a different text in every row(.|\n)*drop=\['who'\]"):
        load(write(text))
    ds = load(write(text), drop=["who"])
    x = everything(ds)[0]
    assert x["level"].tolist() == [row[1] for row in rows]
    assert x["code"].dtype == np.float64
    asked = load(write(text), drop=["who"], categorical=["code"])
    assert everything(asked)[0]["code"].tolist() == [str(row[2]) for row in rows]
    many = "t,y\n" + "".join(f"word{i % 30},{i * 0.5}\n" for i in range(40))
    with pytest.raises(DataError, match=r"30 different texts in 40 rows(.|\n)*categorical=\['t'\]"):
        load(write(many))
    assert len(load(write(many), categorical=["t"]).levels("t")) == 30


def test_numbers_with_a_stray_text_are_a_damage_not_a_category(write):
    text = "a,label\n" + "".join(f"{i % 5},{'xy'[i % 2]}\n" for i in range(20)) + "12abc,x\n"
    with pytest.raises(
        DataError, match=r"line 22: column 'a' holds 20 numbers, but also text in 1 rows(.|\n)*'12abc' \(line 22\)"
    ):
        load(write(text), chunk_bytes=16)
    assert "12abc" in load(write(text), categorical=["a"]).levels("a")
    with pytest.raises(DataError, match="'y' holds 20 numbers, but also text"):
        load(write(text.replace("a,label", "y,a")))


@pytest.mark.parametrize(
    "dates", [["2001-01-02", "2001/03/04"], ["20010102", "20010304"], ["2001-01-02T00:00:00Z", "2001-03-04 00:00"]]
)
def test_dates_are_refused_or_days_by_ask(write, dates):
    path = write(f"date,y\n{dates[0]},1.5\n{dates[1]},2.5\n")
    with pytest.raises(DataError, match=r"column 'date' holds dates(.|\n)*dates='numeric'(.|\n)*drop=\['date'\]"):
        load(path)
    assert everything(load(path, dates="numeric"))[0]["date"].tolist() == [11324.0, 11385.0]


def test_dates_that_can_be_read_two_ways(write):
    path = write("when,a,y\n1/2/2001,1,1.5\n3/4/2001,2,2.5\n")
    with pytest.raises(DataError, match="dates='numeric'"):
        load(path)
    with pytest.raises(DataError, match=r"more than one way(.|\n)*year-month-day"):
        load(path, dates="numeric")
    assert load(path, drop=["when"]).feature_names == ["a"]


def test_dates_with_holes(write):
    ds = load(write("date,y\n2001-01-02,1.5\nNA,2.5\n2001-03-04,2\n"), dates="numeric", missing="drop")
    assert everything(ds)[0]["date"].tolist() == [11324.0, 11385.0]


def test_a_column_that_changes_its_kind_late(write):
    rows = [str(i) for i in range(200)] + ["u", "v"] * 200
    path = write("a,b,y\n" + "".join(f"{value},{i},{i * 0.5}\n" for i, value in enumerate(rows)))
    ds = load(path, chunk_bytes=100, categorical=["a"])
    assert everything(ds)[0]["a"].tolist() == rows
    mixed = write(
        "a,b,y\n" + "".join(f"{i % 7},{i},{i * 0.5}\n" for i in range(50)) + "".join(f"u,{i},1.5\n" for i in range(70))
    )
    found = load(mixed, chunk_bytes=100)
    assert everything(found)[0]["a"].tolist() == [str(i % 7) for i in range(50)] + ["u"] * 70


def test_scikit_learn_count_line(write):
    path = write("4,2,setosa,virginica\n5.1,3.5,0\n4.9,3.0,1\n5.0,3.1,0\n4.0,2.0,1\n")
    ds = load(path)
    assert ds.classes == ["setosa", "virginica"]
    assert everything(ds)[1].tolist() == [0, 1, 0, 1]
    assert "count line" in " ".join(ds.report)
    with pytest.raises(DataError, match=r"the count line does not fit(.|\n)*4 rows(.|\n)*3 rows"):
        load(write("4,2,setosa,virginica\n5.1,3.5,0\n4.9,3.0,1\n5.0,3.1,0\n"))
    with pytest.raises(DataError, match=r"label is out of range(.|\n)*0 … 1(.|\n)*2"):
        load(write("3,2,setosa,virginica\n5.1,3.5,0\n4.9,3.0,2\n5.0,3.1,1\n"))


def test_nothing_to_learn_from(write):
    for text, message in (("", "file is empty"), ("a,b\n", "header but no data"), ("\n\n", "file is empty")):
        with pytest.raises(DataError, match=message):
            load(write(text))
    with pytest.raises(DataError, match=r"only one column(.|\n)*delimiter="):
        load(write("a\n1\n2\n"))
    with pytest.raises(DataError, match="no column to predict from"):
        load(write("a,y\n1,2\n3,4\n"), drop=["a"], target="y")


def test_binary_under_a_text_name(write):
    with pytest.raises(DataError, match=r"this is not text(.|\n)*spreadsheet"):
        load(write(b"PK\x03\x04" + bytes(100), "some.xlsx"))


def test_no_such_file(write, tmp_path):
    write(PLAIN, "flowers.csv")
    with pytest.raises(DataError, match=r"no such file(.|\n)*did you mean 'flowers.csv'"):
        load(tmp_path / "flower.csv")
    with pytest.raises(DataError, match="does not exist either"):
        load(tmp_path / "nowhere" / "flower.csv")


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=6)
cells = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], include_characters="\n,;\"'\t|"), max_size=8
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), cells), min_size=2, max_size=12),
    header=st.lists(names, min_size=3, max_size=3, unique=True),
    chunk=st.integers(1, 200),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_is_written_is_read(write, data, header, chunk, quoting):
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting)
    writer.writerow(header)
    wanted = [(number, f"t{cell}t") for number, cell in data]
    writer.writerows((repr(number), cell, i + 0.5) for i, (number, cell) in enumerate(wanted))
    ds = load(write(text.getvalue()), delimiter=",", header=True, target=2, categorical=[header[1]], chunk_bytes=chunk)
    x, y = everything(ds)
    assert x[header[0]].tolist() == [number for number, _ in wanted]
    assert x[header[1]].tolist() == [cell for _, cell in wanted]
    assert y.tolist() == [i + 0.5 for i in range(len(wanted))]


def test_large_files_stream_into_files_and_are_found_again(write, home, monkeypatch):
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(500, 3))
    words = rng.choice(["red", "green", "blue"], 500)
    path = write(
        "a,b,c,colour,label\n"
        + "".join(f"{a},{b},{c},{w},{i % 2}\n" for i, ((a, b, c), w) in enumerate(zip(numbers, words, strict=True)))
    )
    small = load(path)
    assert not home.exists()
    big = load(path, memory_limit=1000, chunk_bytes=500)
    assert isinstance(big._x.numeric, FileRows)
    for each in (small, big, load(path, memory_limit=1000, chunk_bytes=500)):
        x, y = each.take([499, 3, 3, 77])
        assert np.array_equal(np.stack([x["a"], x["b"], x["c"]], 1), numbers[[499, 3, 3, 77]])
        assert x["colour"].tolist() == words[[499, 3, 3, 77]].tolist()
        assert y.tolist() == [1, 1, 1, 1]
    assert small.fingerprint == big.fingerprint
    folders = list((home / "converted").iterdir())
    assert len(folders) == 1
    assert folders[0].name[0] != "."
    import pellucid.data.delimited as delimited

    def forbidden(*args):
        raise AssertionError("parsed again")

    with monkeypatch.context() as patch:
        patch.setattr(delimited, "fill", forbidden)
        assert len(load(path, memory_limit=1000)) == 500
    path.write_text(path.read_text() + "1,2,3,red,0\n")
    assert len(load(path, memory_limit=1000, chunk_bytes=500)) == 501
    assert load(path).fingerprint != small.fingerprint


def test_memory_stays_bounded_while_a_table_streams(tmp_path, rng, monkeypatch):
    path = tmp_path / "long.csv"
    block = "".join(",".join(map(str, row)) + "\n" for row in rng.integers(0, 1000, (5000, 20)))
    path.write_text("".join(f"c{i}," for i in range(19)) + "y\n" + 10 * block)
    table_bytes = 50_000 * 20 * 8
    monkeypatch.setattr("pellucid.data.preprocessor.CHUNK_VALUES", 20_000)
    tracemalloc.start()
    ds = load(path, memory_limit=100_000, chunk_bytes=20_000)
    pre = Preprocessor.fit(ds, np.arange(0, 50_000, 2))
    pre.x(ds.take(rng.integers(0, 50_000, 128))[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(ds) == 50_000
    assert peak < table_bytes / 2


def test_take_reads_only_the_rows_asked_for(write, monkeypatch):
    path = write("a,y\n" + "".join(f"{i},{i}.5\n" for i in range(1000)))
    ds = load(path, memory_limit=100, chunk_bytes=500)
    asked = []
    original = FileRows.__getitem__
    monkeypatch.setattr(FileRows, "__getitem__", lambda self, rows: asked.append(rows) or original(self, rows))
    ds.take([5, 900])
    assert [np.asarray(rows).tolist() for rows in asked] == [[5, 900]]


def test_a_stopped_conversion_leaves_nothing(write, home):
    path = write("a,b,label\n" + "".join(f"{i},{i},{i % 2}\n" for i in range(500)) + "1,2\n")
    with pytest.raises(DataError, match="1 row does not have 3 cells"):
        load(path, memory_limit=1000, chunk_bytes=500)
    assert not list((home / "converted").iterdir())


def test_a_full_disk_is_said_and_leaves_nothing(write, home, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    path = write("a,label\n" + "".join(f"{i},{i % 2}\n" for i in range(500)))
    original = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, *args, **kw: Full() if "wb" in args else original(self, *args, **kw))
        with pytest.raises(DataError, match=r"No space left on device(.|\n)*PELLUCID_DATA_HOME"):
            load(path, memory_limit=1000, chunk_bytes=500)
    assert not list((home / "converted").iterdir())


def test_new_data_fits_the_trained_columns_by_name(write):
    train = load(
        write(
            "colour,size,date,code,label\n"
            + "".join(f"{'rgb'[i % 3]},{i}.5,2001-01-{i + 1:02},{i % 4},{'xy'[i % 2]}\n" for i in range(20))
        ),
        dates="numeric",
        categorical=["code"],
    )
    pre = Preprocessor.fit(train)
    expected = pre.x(train.take([4, 7])[0])
    new = write("code,date,extra,size,colour\n0,2001-01-05,foo,4.5,g\n3,2001-01-08,bar,7.5,g\n", "new.csv")
    ds = load(new, like=pre)
    assert ds.y is None
    assert np.array_equal(pre.x(everything(ds)[0]), expected)
    assert "'extra'" in " ".join(ds.report)
    labelled = load(write("label,code,date,size,colour\nx,0,2001-01-05,4.5,g\n", "one.csv"), like=pre)
    assert pre.y(everything(labelled)[1]).tolist() == [0]
    with pytest.raises(DataError, match=r"columns 'size', 'colour' are missing(.|\n)*got: +code, date"):
        load(write("code,date\n0,2001-01-05\n", "short.csv"), like=pre)
    with pytest.raises(DataError, match=r"line 3: column 'size' held numbers in the training data(.|\n)*'big'"):
        load(write("code,date,size,colour\n0,2001-01-05,4.5,r\n0,2001-01-05,big,r\n", "text.csv"), like=pre)
    with pytest.raises(DataError, match=r"value is missing(.|\n)*'size': 1 \(first at line 2\)"):
        load(write("code,date,size,colour\n0,2001-01-05,,r\n", "hole.csv"), like=pre)
    odd = load(write("code,date,size,colour\n0,2001-01-05,1,violet\n", "odd.csv"), like=pre)
    with pytest.raises(DataError, match=r"category that was not there in training(.|\n)*'r'(.|\n)*'violet'"):
        pre.x(everything(odd)[0])


@pytest.mark.parametrize("missing", ["mean", "median", "most_frequent"])
def test_new_data_are_filled_in_as_in_training(write, missing):
    pre = Preprocessor.fit(load(write("a,label\n1,x\n2,y\n2,x\n9,y\n,x\n"), missing=missing))
    ds = load(write("a\n\n7\nNA\n", "new.csv"), like=pre)
    assert "1 missing value is filled in as in training" in ds.report
    fill = {"mean": 3.5, "median": 2, "most_frequent": 2}[missing]
    assert np.allclose(pre.x(everything(ds)[0])[:, 0] * pre.scale + pre.mean, [7, fill])


def test_columns_can_be_named(write):
    ds = load(write("1.5,2.5,0\n3.5,4.5,1\n5.5,6.5,0\n"), column_names=["width", "height"])
    assert ds.feature_names == ["width", "height"]
    assert ds.target_names == ["column 3"]
    with pytest.raises(ParameterError, match="column_names= takes a list"):
        load(write("1,2\n3,4\n"), column_names="width")


def test_new_data_without_header_fits_by_place(write):
    pre = Preprocessor.fit(load(write("1.5,2.5,0\n3.5,4.5,1\n5.5,6.5,0\n")))
    ds = load(write("1.5,2.5\n3.5,4.5\n", "new.csv"), like=pre)
    assert ds.feature_names == ["column 1", "column 2"]
    assert math.isclose(ds.take([1])[0]["column 2"][0], 4.5)


def parquet(tmp_path, columns, name="some.parquet", **options):
    pa = pytest.importorskip("pyarrow", reason="reading Parquet needs pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / name
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_parquet_in_row_groups(tmp_path):
    import datetime
    import decimal

    count = 50
    columns = {
        "f": np.arange(count) * 0.5,
        "i": list(range(count)),
        "flag": [i % 2 == 0 for i in range(count)],
        "money": [decimal.Decimal(i) / 4 for i in range(count)],
        "colour": [["red", "green"][i % 2] for i in range(count)],
        "day": [datetime.date(2001, 1, 2)] * count,
        "at": [datetime.datetime(2001, 1, 2, 12)] * count,
        "label": ["xyz"[i % 3] for i in range(count)],
    }
    path = parquet(tmp_path, columns, row_group_size=7)
    with pytest.raises(DataError, match="'day' holds dates"):
        load(path)
    for options in ({}, {"memory_limit": 300}):
        ds = load(path, dates="numeric", **options)
        x, y = ds.take([3, 48])
        assert [x[name].tolist() for name in ("f", "i", "flag", "money", "colour", "day", "at")] == [
            [1.5, 24], [3, 48], [0, 1], [0.75, 12], ["green", "red"], [11324, 11324], [11324.5, 11324.5],
        ]  # fmt: skip
        assert y.tolist() == ["x", "x"]


def test_parquet_that_cannot_be_used(tmp_path):
    path = parquet(tmp_path, {"a": [1.0, None, float("nan"), 4.0], "y": [1.5, 2.5, 3.5, 4.0]})
    with pytest.raises(DataError, match=r"'a': 2 \(first at row 1, 2\)"):
        load(path)
    assert len(load(path, missing="drop")) == 2
    nested = parquet(tmp_path, {"a": [[1], [2, 3]], "b": [1, 2], "y": [1.5, 2.5]})
    with pytest.raises(DataError, match=r"'a' holds values that are neither(.|\n)*list(.|\n)*drop=\['a'\]"):
        load(nested)
    assert load(nested, drop=["a"]).feature_names == ["b"]
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 nothing more")
    with pytest.raises(DataError, match="no Parquet file"):
        load(broken)
