import numpy as np
import pytest
from PIL import Image

from edgemeta.errors import BadData
from edgemeta.search.jobs import DataSpec
from edgemeta.stages.assemble import require_data


def photos(root, classes: int, per_class: int) -> DataSpec:
    for number in range(classes * per_class):
        path = root / f"c{number // per_class:02d}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number % 256, np.uint8)).save(path)
    return DataSpec("folder", str(root), str(root / "cache"), (1, 8, 8), 0)


@pytest.mark.parametrize(
    ("classes", "per_class", "way", "shot", "says"),
    [
        (3, 6, 3, 1, "3 classes and none for 'train'.*edgemeta enroll"),
        (16, 1, 5, 1, "needs 2 classes: 0 of 6 classes have 2 images"),
        (16, 6, 6, 1, "6-way 1-shot .* needs 6 classes"),
        (16, 6, 5, 6, "5-way 6-shot .* lower way, shot or query"),
    ],
)
def test_data_that_cannot_teach_is_refused_before_any_training(tmp_path, classes, per_class, way, shot, says):
    with pytest.raises(BadData, match=says):
        require_data(photos(tmp_path, classes, per_class), way, shot)


def test_unreadable_images_are_named_and_counted(tmp_path):
    spec = photos(tmp_path, 16, 6)
    (tmp_path / "c00" / "broken.png").write_bytes(b"junk")
    with pytest.warns(UserWarning, match=r"folder: skipped 1 unreadable image: c00/broken\.png"):
        require_data(spec, 5, 1)
