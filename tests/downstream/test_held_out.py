"""Test images held out from training images: none of the other folder's own, none in both, and every engine reads them."""

import shutil

import pytest

from bench import journey
from downstream import held_out, synthetic


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("held_out")
    synthetic.synthesize(root / "data", voc=8, coco=0, cityscapes=8, imagenet=8, side=96)
    return root / "data", root / "held", held_out.hold_out(root / "data", root / "held")


def names(file):
    return set(file.read_text().split())


def test_a_quarter_of_the_training_images_is_tested_and_no_test_image_is_there(folders):
    data, held, counts = folders
    assert counts == {"VOC2007": (12, 4), "VOC2012": (6, 2), "cityscapes": (6, 2), "imagenet": (120, 40)}
    for year, folder, split, own in (
        ("VOC2007", "Main", "trainval", "test"),
        ("VOC2012", "Segmentation", "trainaug", "val"),
    ):
        before, after = data / year / "ImageSets" / folder, held / year / "ImageSets" / folder
        train, test = names(after / f"{split}.txt"), names(after / f"{own}.txt")
        assert not train & test
        assert train | test == names(before / f"{split}.txt")
        assert max(train) < min(test)  # the last by name
        assert not (train | test) & names(before / f"{own}.txt")


def test_an_image_of_sbds_is_not_tested_for_its_map_is_not_where_those_of_val_are_sought(folders, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folders[0] / "VOC2012", data / "VOC2012")
    lists = data / "VOC2012/ImageSets/Segmentation"
    ordered = sorted(names(lists / "trainaug.txt"))
    official, sbd = ordered[:4], ordered[4:]
    (lists / "train.txt").write_text("\n".join(official))
    for name in sbd:
        (data / f"VOC2012/SegmentationClass/{name}.png").unlink()
    assert held_out.hold_out(data, tmp_path / "held") == {"VOC2012": (7, 1)}
    held = tmp_path / "held/VOC2012/ImageSets/Segmentation"
    assert [names(held / f"{split}.txt") for split in ("val", "train")] == [{official[3]}, {*official[:3]}]
    assert names(held / "trainaug.txt") == {*official[:3], *sbd}
    protocol = journey.resolve("voc_semantic", "mini", {})
    found = journey.engine(protocol).found(protocol, tmp_path / "held")
    assert (found["train"], found["test"]) == (7, 1)


def test_its_files_are_the_training_images_own(folders):
    data, held, _ = folders
    for kind in ("leftImg8bit", "gtFine"):
        train, test = (
            {file.resolve() for file in (held / "cityscapes" / kind / split).glob("*/*")} for split in ("train", "val")
        )
        assert train | test == set((data.resolve() / "cityscapes" / kind / "train").glob("*/*")) and not train & test
    train, test = ({file.resolve() for file in (held / "imagenet" / split).glob("*/*")} for split in ("train", "val"))
    assert train | test == set((data.resolve() / "imagenet" / "train").glob("*/*")) and not train & test


@pytest.mark.parametrize("task", ["voc_c4", "voc_semantic", "cityscapes_semantic", "imagenet_linear"])
def test_every_engine_reads_it(folders, task):
    protocol = journey.resolve(task, "mini", {})
    found = journey.engine(protocol).found(protocol, folders[1])
    assert (found["train"], found["test"]) == {
        "voc_c4": (12 + 16, 4),
        "voc_semantic": (6, 2),
        "cityscapes_semantic": (6, 2),
    }.get(task, (120, 40))


def test_a_folder_without_any_of_them_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="VOC2007, VOC2012, cityscapes, imagenet"):
        held_out.hold_out(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_where_a_list_is_missing(folders, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folders[0], data, symlinks=True)
    (data / "VOC2012/ImageSets/Segmentation/trainaug.txt").unlink()
    with pytest.raises(FileNotFoundError, match="trainaug"):
        held_out.hold_out(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
