from __future__ import annotations

import errno
import json
import math
import os
import resource
import stat
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pellucid.errors import CheckpointError, ParameterError
from pellucid.files import atomic_write, locked, read_arrays, sweep, to_json, write_arrays

DTYPES = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
DTYPES += ["float16", "float32", "float64", "bool"]
names = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8).filter(
    lambda s: s != "__metadata__"
)
any_array = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
any_document = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


def left_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.pellucid"
    rng = np.random.default_rng(0)
    arrays = {
        "dense_1/W": rng.normal(size=(3, 5)).astype(np.float32),
        "dense_1/b": np.zeros((3, 1)),
        "step": np.array(7),
    }
    write_arrays(path, arrays, {"epoch": 3, "learning_rate": 0.1})
    return path


@given(arrays=st.dictionaries(names, any_array, max_size=4), document=any_document)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arrays_and_document_come_back_bit_for_bit(tmp_path, arrays, document):
    path = write_arrays(tmp_path / "a.pellucid", arrays, document)
    back, back_document = read_arrays(path)
    assert back_document == document
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()
        assert back[name].flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24.0).reshape(4, 6).T,
        np.arange(24.0).reshape(4, 6)[::-1, ::2],
        np.arange(3, dtype=">f4"),
        np.float32(2.5),
    ],
    ids=["transposed", "strided", "big-endian", "scalar"],
)
def test_layout_in_memory_does_not_matter(tmp_path, array):
    back, _ = read_arrays(write_arrays(tmp_path / "a", {"x": array}, {}))
    np.testing.assert_array_equal(back["x"], array)
    assert back["x"].shape == np.shape(array)


def test_nan_and_infinities_survive_in_document_and_arrays(tmp_path):
    values = np.array([np.nan, np.inf, -np.inf, -0.0])
    document = {"loss": [math.nan, math.inf, -math.inf, -0.0, 5e-324, np.float32(0.1)]}
    back, back_document = read_arrays(write_arrays(tmp_path / "a", {"x": values}, document))
    assert back["x"].tobytes() == values.tobytes()
    assert np.array(back_document["loss"]).tobytes() == np.array(document["loss"], dtype=np.float64).tobytes()


def test_safetensors_itself_reads_the_file(saved):
    from safetensors.numpy import load_file

    assert set(load_file(saved)) == {"dense_1/W", "dense_1/b", "step"}
    assert load_file(saved)["step"] == 7


@pytest.mark.parametrize("part", range(20))
def test_truncated_file_is_refused(saved, part):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: len(whole) * part // 20])
    with pytest.raises(CheckpointError, match=r"(?s)model\.pellucid: .*(empty|damaged).*hint"):
        read_arrays(saved)


def test_every_flipped_byte_is_noticed(saved):
    whole = saved.read_bytes()
    for place in range(len(whole)):
        for flip in (1, 0x20, 0x80):
            changed = bytearray(whole)
            changed[place] ^= flip
            saved.write_bytes(changed)
            with pytest.raises(CheckpointError, match=r"model\.pellucid"):
                read_arrays(saved)


def test_flipped_array_payload_is_named_as_damage(saved):
    changed = bytearray(saved.read_bytes())
    changed[-1] ^= 1
    saved.write_bytes(changed)
    with pytest.raises(CheckpointError, match=r"do not match their checksum"):
        read_arrays(saved)


def test_extra_bytes_at_the_end_are_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match=r"damaged"):
        read_arrays(saved)


def test_other_format_version_is_refused(saved):
    saved.write_bytes(saved.read_bytes().replace(b'"pellucid.format": "1"', b'"pellucid.format": "9"'))
    with pytest.raises(CheckpointError, match=r"(?s)format that this version cannot read.*format 1.*format 9.*upgrade"):
        read_arrays(saved)


def test_foreign_files_are_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, tmp_path / "other.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"(?s)not one that pellucid saved.*format"):
        read_arrays(tmp_path / "other.safetensors")
    (tmp_path / "note.txt").write_text("hello, this is text and nothing else")
    with pytest.raises(CheckpointError, match=r"note\.txt: the file is damaged, truncated or of another kind"):
        read_arrays(tmp_path / "note.txt")
    (tmp_path / "empty").touch()
    with pytest.raises(CheckpointError, match=r"empty: the file is empty"):
        read_arrays(tmp_path / "empty")
    with pytest.raises(CheckpointError, match=r"nowhere: cannot be read: No such file"):
        read_arrays(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"cannot be read: it is a folder"):
        read_arrays(tmp_path)


def test_header_with_a_dtype_nobody_knows(tmp_path):
    header = json.dumps({"x": {"dtype": "Q9", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    with pytest.raises(CheckpointError, match=r"damaged"):
        read_arrays(tmp_path / "a")


def test_what_cannot_be_saved_is_refused_before_the_file_is_touched(saved):
    before = saved.read_bytes()
    with pytest.raises(ParameterError, match=r"array 'z' cannot be saved(?s:.*)complex128"):
        write_arrays(saved, {"z": np.zeros(2, complex)}, {})
    with pytest.raises(ParameterError, match=r"'z' cannot be saved(?s:.*)object"):
        write_arrays(saved, {"z": np.array([{}])}, {})
    with pytest.raises(ParameterError, match=r"not a name"):
        write_arrays(saved, {"__metadata__": np.zeros(2)}, {})
    with pytest.raises(ParameterError, match=r"cannot be written as JSON: object"):
        write_arrays(saved, {}, {"thing": object()})
    assert saved.read_bytes() == before


def test_document_that_could_not_be_read_back_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pellucid.files._HEADER_LIMIT", 1000)
    with pytest.raises(ParameterError, match=r"too large to be read back"):
        write_arrays(tmp_path / "a", {}, {"text": "x" * 1000})
    assert left_in(tmp_path) == []


def test_atomic_write_makes_folders_keeps_the_mode_and_leaves_nothing_else(tmp_path):
    path = atomic_write(tmp_path / "new" / "folder" / "note.txt", "grün")
    assert path.read_bytes() == "grün".encode()
    path.chmod(0o640)
    atomic_write(path, b"second")
    assert path.read_bytes() == b"second"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert left_in(path.parent) == ["note.txt"]


def test_the_data_is_on_disk_before_it_gets_its_name_and_the_name_after(tmp_path, monkeypatch):
    did, sync, rename = [], os.fsync, os.replace

    def synced(descriptor):
        did.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.fstat(descriptor).st_size)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: (did.append("rename"), rename(*paths)))
    atomic_write(tmp_path / "note.txt", "12345")
    assert did == [5, "rename", "sync folder"]


def test_a_symbolic_link_stays_a_link(tmp_path):
    real = tmp_path / "real.txt"
    real.write_text("old")
    (tmp_path / "link").symlink_to(real)
    atomic_write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert real.read_text() == "new"


def test_a_folder_or_a_device_is_not_replaced(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot be written: it is a folder"):
        atomic_write(tmp_path, "x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match=r"not a regular file"):
        atomic_write(tmp_path / "pipe", "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot be written"):
        atomic_write(tmp_path / "file" / "note.txt", "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match=r"(?s)Permission denied.*may write to"):
        atomic_write(tmp_path / "note.txt", "x")
    tmp_path.chmod(0o700)


def test_permission_denied_says_so(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CheckpointError, match=r"(?s)note\.txt: cannot be written: Permission denied.*may write to"):
        atomic_write(tmp_path / "note.txt", "x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_leaves_the_old_file(saved, monkeypatch):
    before, real_open = saved.read_bytes(), os.open

    def onto_full_disk(path, *rest):
        if str(path).endswith(".tmp"):
            real = real_open(path, *rest)
            os.close(real)
            return real_open("/dev/full", os.O_WRONLY)
        return real_open(path, *rest)

    monkeypatch.setattr(os, "open", onto_full_disk)
    with pytest.raises(CheckpointError, match=r"(?s)model\.pellucid: cannot be written: No space left.*disk is full"):
        write_arrays(saved, {"x": np.zeros(1000)}, {})
    assert saved.read_bytes() == before
    assert left_in(saved.parent) == ["model.pellucid"]


def test_a_limit_hit_in_the_middle_of_the_write_leaves_the_old_file(saved):
    before = saved.read_bytes()
    program = (
        "import sys, numpy as np; from pellucid.files import write_arrays\n"
        "write_arrays(sys.argv[1], {'x': np.ones(1_000_000)}, {})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, saved],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "CheckpointError" in done.stderr
    assert "ulimit -f" in done.stderr
    assert saved.read_bytes() == before
    assert left_in(saved.parent) == ["model.pellucid"]


def test_an_interrupt_leaves_the_old_file(saved):
    before = saved.read_bytes()

    def interrupted(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(saved, interrupted)
    assert saved.read_bytes() == before
    assert left_in(saved.parent) == ["model.pellucid"]


def test_sweep_removes_what_a_killed_writer_left_and_nothing_else(saved):
    program = (
        "import os, sys; from pellucid.files import atomic_write\n"
        "def write(file):\n    file.write(b'half')\n    os.kill(os.getpid(), 9)\n"
        "atomic_write(sys.argv[1], write)"
    )
    assert subprocess.run([sys.executable, "-c", program, saved], check=False).returncode == -9
    assert len(left_in(saved.parent)) == 2
    sweep(saved.parent)
    assert left_in(saved.parent) == ["model.pellucid"]


def test_the_lock_keeps_read_and_write_steps_apart(tmp_path):
    program = (
        "import sys; from pathlib import Path; from pellucid.files import atomic_write, locked\n"
        "lock, count = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "for _ in range(40):\n"
        "    with locked(lock):\n"
        "        atomic_write(count, str(int(count.read_text()) + 1))\n"
    )
    lock, count = tmp_path / "lock", tmp_path / "count"
    lock.touch()
    count.write_text("0")
    racers = [subprocess.Popen([sys.executable, "-c", program, lock, count]) for _ in range(2)]
    assert [racer.wait() for racer in racers] == [0, 0]
    with locked(lock):
        assert count.read_text() == "80"


def test_to_json_takes_numpy_and_paths():
    assert json.loads(to_json({"a": np.float32(0.5), "b": np.arange(2), "c": Path("x") / "y", "d": (1, 2)})) == {
        "a": 0.5,
        "b": [0, 1],
        "c": "x/y",
        "d": [1, 2],
    }
    with pytest.raises(ParameterError, match=r"cannot be written as JSON: set"):
        to_json({1})
