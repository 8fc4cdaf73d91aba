"""Two tiny data sets in the original layouts, drawn once."""

import pytest
import torch

from tests import trees


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("data sets")
    trees.mvtec(home / "mvtec_anomaly_detection", size=(40, 30))
    trees.visa(home / "VisA_20220922", size=(40, 30))
    return home
