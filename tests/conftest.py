"""Settings of the whole test run, and two tiny data sets in the original layouts, drawn once."""

import pytest
import torch
from hypothesis import settings

from tests import trees

# Tests are many and tiny: two threads per operation only wait for each other, several times slower on a busy machine.
torch.set_num_threads(1)
# A slow machine is no fault of the code.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


def pytest_make_parametrize_id(val):
    """A name without a memory address, which differs between the workers of one run."""
    return getattr(val, "__name__", type(val).__name__) if " at 0x" in repr(val) else None


def pytest_collection_modifyitems(items):
    """Workers must find the same tests; said here for one process too, where it would go unnoticed."""
    if named := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"{named[0]}: a test's name holds a memory address; give ids=")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("data sets")
    trees.mvtec(home / "mvtec_anomaly_detection", size=(40, 30))
    trees.visa(home / "VisA_20220922", size=(40, 30))
    return home
