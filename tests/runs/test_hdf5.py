"""HDF5 on a full disk: an error that can be caught, in a process that lives on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from metaaudit.runs.hdf5 import writing

LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from metaaudit.runs.hdf5 import writing

limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with writing(Path(sys.argv[1])) as file:
        for name in "ab":
            file.create_dataset(name, data=np.ones((50, 400)), chunks=True, fletcher32=True)
except OSError as error:
    print(error.strerror)
"""


def test_file_reads_back(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(30, 7))
    with writing(tmp_path / "a.h5", userblock_size=512) as file:
        file.create_dataset("values", data=values, chunks=(4, 7), compression="gzip")
        file.attrs["complete"] = True
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.userblock_size == 512
        assert file.attrs["complete"]
        np.testing.assert_array_equal(file["values"][()], values)


# HDF5 alone ends such a process with a segmentation fault.
@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 1000, 100_000, 300_000])
def test_full_disk_is_an_error_and_no_crash(tmp_path: Path, limit: int) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "a.h5"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "File too large\n", "")
