import numpy as np
import pytest
import torch
from PIL import Image

from pretrain import data
from pretrain.methods import moco

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
SMALL = {**moco.recipe(), "size": 16, "batch_size": 4}


def draw(root, names, side=20):
    rng = np.random.default_rng(0)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


def test_classes_are_the_first_folders_and_deeper_images_belong_to_them(tmp_path):
    draw(tmp_path, ["b/1.png", "a/x/2.JPEG", "a/3.jpg", "4.png", "a/.hidden.png"])
    (tmp_path / "notes.txt").write_text("not an image")
    folder = data.Folder(tmp_path)
    assert folder.classes == ["a", "b"]
    assert {path.name: int(label) for path, label in zip(folder.paths, folder.labels, strict=True)} == {
        "4.png": -1,
        "3.jpg": 0,
        "2.JPEG": 0,
        "1.png": 1,
    }


def test_linked_class_folders_are_followed(tmp_path):
    draw(tmp_path / "real", ["1.png"])
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").symlink_to(tmp_path / "real")
    assert len(data.Folder(tmp_path / "root")) == 1


def test_grey_palette_cmyk_alpha_and_16_bit_images_become_rgb(tmp_path):
    rgb = Image.fromarray(np.full((5, 6, 3), (200, 100, 50), np.uint8))
    for mode, name in (
        ("L", "l.png"),
        ("P", "p.png"),
        ("CMYK", "c.jpg"),
        ("RGBA", "a.png"),
        ("1", "b.png"),
        ("LA", "la.png"),
    ):
        rgb.convert(mode).save(tmp_path / name)
        assert data.decoded(tmp_path / name).shape == (5, 6, 3)
    assert abs(data.decoded(tmp_path / "c.jpg").astype(int) - (200, 100, 50)).max() <= 4
    Image.fromarray(np.full((5, 6), 256 * 77, np.uint16)).save(tmp_path / "16.png")
    assert (data.decoded(tmp_path / "16.png") == 77).all()


@pytest.mark.parametrize("kept", [True, False])
def test_an_unreadable_image_is_named(tmp_path, kept, monkeypatch):
    draw(tmp_path, [f"{i}.png" for i in range(5)])
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) // 2])
    folder = data.Folder(tmp_path)
    with pytest.raises(ValueError, match=r"3\.png"):
        if kept:
            folder.keep()
        else:
            list(data.batches(data.Steps(folder, {**SMALL, "batch_size": 5}, 0), 0, 1, 1, False))


def test_a_folder_that_is_missing_or_empty_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        data.Folder(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="found none"):
        data.Folder(tmp_path)


def test_a_folder_too_large_for_memory_is_read_from_disk_with_the_same_result(tmp_path, monkeypatch):
    draw(tmp_path, [f"{i}.png" for i in range(4)])
    one, other = data.Folder(tmp_path), data.Folder(tmp_path)
    assert one.keep()
    monkeypatch.setattr(data, "MEMORY", 10)
    assert not other.keep()
    for a, b in zip(data.Steps(one, SMALL, 0).batch(0)[0], data.Steps(other, SMALL, 0).batch(0)[0], strict=True):
        assert torch.equal(a, b)


def test_a_step_is_the_same_whoever_prepares_it_and_differs_from_the_next(tmp_path):
    draw(tmp_path, [f"{i}.png" for i in range(9)])
    steps = data.Steps(data.Folder(tmp_path), SMALL, seed=3)
    inline = list(data.batches(steps, 0, 5, 0, False))
    worker = list(data.batches(steps, 2, 5, 2, False))
    for (pixels, boxes, labels), (pixels2, boxes2, labels2) in zip(inline[2:], worker, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(pixels, pixels2, strict=True))
        assert torch.equal(boxes, boxes2)
        assert torch.equal(labels, labels2)
    assert not torch.equal(inline[0][1], inline[2][1])  # the same place of the next epoch
    assert not torch.equal(inline[0][0][0], inline[0][0][1])  # two independent views


def test_an_epoch_visits_no_image_twice_and_drops_the_incomplete_batch(tmp_path):
    draw(tmp_path, [f"{i}/0.png" for i in range(9)])
    steps = data.Steps(data.Folder(tmp_path), SMALL, seed=0)
    assert steps.per_epoch == 2
    seen = [label for step in range(2) for label in steps.batch(step)[2].tolist()]
    assert len(seen) == len(set(seen)) == 8


def test_the_shares_of_two_processes_are_the_batch_of_one(tmp_path):
    draw(tmp_path, [f"{i}.png" for i in range(9)])
    folder = data.Folder(tmp_path)
    whole = data.Steps(folder, SMALL, 0).batch(3)
    shares = [data.Steps(folder, SMALL, 0, rank, 2).batch(3) for rank in range(2)]
    for v in range(2):
        assert torch.equal(whole[0][v], torch.cat([share[0][v] for share in shares]))
        assert torch.equal(whole[1][v], torch.cat([share[1][v] for share in shares]))
