from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
import torch

from edgemeta.errors import BadBundle, EdgemetaError
from edgemeta.files import resource
from edgemeta.learners import LEARNERS
from edgemeta.lowering import bundle
from edgemeta.lowering.bundle import RUNTIME
from edgemeta.nets.build import build
from edgemeta.stages import device_side
from edgemeta.types import Op
from tests.blobs import blob_pool


@pytest.fixture
def copy(tmp_path):
    """A bundle's own copy of the runtime, of another age."""
    for name in RUNTIME:
        shutil.copy(resource("export") / "python" / name, tmp_path)
    with open(tmp_path / "edgemeta_learned.py", "a") as file:
        file.write("\nAGE = 7\n")
    return tmp_path


def test_all_files_of_a_runtime_are_of_one_copy(copy):
    before = list(sys.path), {name for name in sys.modules if name.startswith("edgemeta_")}
    shipped, own = device_side.runtime(), device_side.runtime(copy)
    assert own.learning.AGE == 7 and not hasattr(shipped.learning, "AGE")
    assert issubclass(own.UnreadableImage, own.DeviceError) and own.DeviceError is not shipped.DeviceError
    assert before == (list(sys.path), {name for name in sys.modules if name.startswith("edgemeta_")})


def test_a_runtime_that_lacks_a_file_is_refused(copy):
    (copy / "edgemeta_images.py").unlink()
    with pytest.raises(BadBundle, match=r"edgemeta_images\.py is missing"):
        device_side.runtime(copy)


def test_mistakes_of_the_device_are_the_librarys(tmp_path):
    with pytest.raises(EdgemetaError, match="manifest.json is missing"):
        device_side.run("predict", tmp_path, 1, images=[tmp_path], state=tmp_path / "state.npz", unknown=None)


@pytest.mark.parametrize("name", ["protonet", "maml-last"])
def test_device_and_torch_are_held_against_each_other(name, tmp_path):
    """A learner on features, and one on images."""
    net = build((Op("conv", (1, 12, 12), (2, 3, 3), kernel=5, stride=4, act="relu"),))
    learner = LEARNERS[name](net)
    slow = learner.init(rng=torch.Generator().manual_seed(0))
    folder = bundle.write(tmp_path / "bundle", slow=slow, learner=learner, facts={})
    rng, pool = np.random.default_rng(0), blob_pool(classes=6, seed=0)
    told = device_side.compare(folder, learner, slow, pool, way=3, shot=2, episodes=3, rng=rng)
    assert told["agreement"] == 1.0 and told["device_accuracy"] == told["torch_accuracy"] > 0.5
