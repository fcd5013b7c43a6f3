import itertools
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image, features

from pretrain import data, faults, views
from pretrain.methods import moco

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


def test_the_order_is_that_of_the_sorted_paths(tmp_path):
    draw(
        tmp_path,
        ["a/z.png", "a-b/x.png", "a.png", "a.b/c.png", "B/1.png", "ä/2.png", "a/b/c.png", "a/b.png", "a/B/d.png"],
    )
    (tmp_path / "c.png").mkdir()
    draw(tmp_path, ["c.png/e.png"])
    paths = list(data.Folder(tmp_path).paths)
    assert paths == sorted(set(tmp_path.rglob("*.png")) - {tmp_path / "c.png"})
    assert data.Folder(tmp_path).paths[2:5] == paths[2:5]


def test_a_listed_image_takes_its_name_and_sixteen_bytes(tmp_path):
    for top in range(4):
        (tmp_path / f"n{top:08}").mkdir()
        for number in range(2500):
            (tmp_path / f"n{top:08}" / f"{number:016}.JPEG").touch()
    tracemalloc.start()
    folder = data.Folder(tmp_path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    name = len("n00000000/0000000000000000.JPEG")
    assert len(folder) == 10_000
    assert held < 10_000 * 1.3 * (name + 16) + 50_000
    assert peak - held < 2500 * 400  # what lies in one folder, while it is read


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 5}], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_is_decoded_as_pil_decodes_it_and_a_cut_one_is_refused_as_pil_refuses_it(tmp_path, mode, options):
    noise = np.random.default_rng(0).normal(128, 60, (30, 41, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(noise).resize((123, 91)).convert(mode)
    image.save(tmp_path / "whole.jpg", **options)
    with Image.open(tmp_path / "whole.jpg") as pil:
        theirs = np.asarray(pil.convert("RGB"))
    assert np.array_equal(data.decoded(tmp_path / "whole.jpg"), theirs)
    content = (tmp_path / "whole.jpg").read_bytes()
    assert data.ordinary_jpeg(bytearray(content)) == (mode != "CMYK")
    for length in (0, 1, 2, 3, 20, 170, len(content) // 2, len(content) - 30):
        (tmp_path / "cut.jpg").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.jpg"):
            data.decoded(tmp_path / "cut.jpg")


def test_a_jpeg_that_says_it_is_enormous_is_left_to_pil(tmp_path, monkeypatch):
    draw(tmp_path, ["1.jpg"])
    content = bytearray((tmp_path / "1.jpg").read_bytes())
    assert data.ordinary_jpeg(content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399)
    assert not data.ordinary_jpeg(content)


def test_images_that_turn_out_too_large_together_are_not_kept(tmp_path, monkeypatch):
    draw(tmp_path, [f"{i:03}.png" for i in range(0, 130, 2)], side=4)  # every second one is judged by
    draw(tmp_path, [f"{i:03}.png" for i in range(1, 130, 2)], side=40)
    folder = data.Folder(tmp_path)
    monkeypatch.setattr(data, "MEMORY", 20_000)
    assert not folder.keep() and folder.kept is None
    assert folder.image(1).shape == (40, 40, 3)


def test_linked_class_folders_are_followed(tmp_path):
    draw(tmp_path / "real", ["1.png"])
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").symlink_to(tmp_path / "real")
    assert len(data.Folder(tmp_path / "root")) == 1
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "root")
    with pytest.raises(ValueError, match=r"found .*root/a/loop, which is a folder above itself by a link"):
        data.Folder(tmp_path / "root")


def test_a_class_folder_that_may_not_be_read_is_named_and_not_left_out(tmp_path, monkeypatch):
    draw(tmp_path / "a", ["1.png"])
    (tmp_path / "b").mkdir()
    scandir = data.os.scandir

    def refused(folder):
        if str(folder).endswith("/b"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(data.os, "scandir", refused)
    with pytest.raises(ValueError, match=r"found that .*/b may not: give the right"):
        data.Folder(tmp_path)


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
    for name in ("16.png", "16.tif", "16.pgm"):
        Image.fromarray(np.full((5, 6), 256 * 77, np.uint16)).save(tmp_path / name)
        assert (data.decoded(tmp_path / name) == np.full((5, 6, 3), 77)).all()


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


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "an empty file"), (b"<html>", "cannot identify the kind of image")]
)
def test_what_is_no_image_is_said_without_a_place_in_memory(tmp_path, content, words):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=rf"found {tmp_path / 'a.png'} \({words}\): repair or remove it"):
        data.decoded(tmp_path / "a.png")


@pytest.mark.skipif(not features.check("avif"), reason="this PIL reads no AVIF")
@pytest.mark.parametrize("damage", ["header", "pixels"])
def test_a_damaged_avif_is_named_whatever_its_name_says(tmp_path, damage):
    path = tmp_path / "0.jpg"
    Image.new("RGB", (20, 20)).save(path, "AVIF")
    content = path.read_bytes()
    at = content.index(b"mdat") + 4
    path.write_bytes(
        content.replace(b"pitm", b"none") if damage == "header" else content[:at].ljust(len(content), b"x")
    )
    with pytest.raises(ValueError, match=rf"found {path} \(Failed to decode.*: repair or remove it"):
        data.decoded(path)
    assert ("Failed to decode" in faults.fault(path, header=True)) == (damage == "header")


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
    for (pixels, *rest), (pixels2, *rest2) in zip(inline[2:], worker, strict=True):
        assert all(torch.equal(a, b) for a, b in zip([*pixels, *rest], [*pixels2, *rest2], strict=True))
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


def test_the_numbers_of_the_images_come_with_the_batch_and_name_the_same_images_as_the_labels(tmp_path):
    draw(tmp_path, [f"{i}/0.png" for i in range(9)])
    folder = data.Folder(tmp_path)
    steps = data.Steps(folder, SMALL, seed=0)
    for step in range(4):
        *_, labels, indices = steps.batch(step)
        assert labels.tolist() == [int(folder.paths[i].parent.name) for i in indices]


def test_a_loader_draws_no_random_number_of_the_process(tmp_path):
    draw(tmp_path, [f"{i}.png" for i in range(4)])
    steps = data.Steps(data.Folder(tmp_path), SMALL, seed=0)
    torch.manual_seed(3)
    expected = torch.rand(1)
    for workers in (0, 1):
        torch.manual_seed(3)
        list(data.batches(steps, 0, 1, workers, False))
        assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(("workers", "ahead"), [(1, 4), (2, 4), (16, 32)])
def test_few_batches_are_prepared_ahead_however_many_processes_there_are(workers, ahead, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.utils.data, "DataLoader", lambda steps, **options: asked.append(options) or ())
    list(data.batches([], 0, 0, workers, False))
    assert asked[0]["num_workers"] * asked[0]["prefetch_factor"] == ahead


def test_a_window_slides_over_one_order_of_all_images_and_wraps(tmp_path):
    draw(tmp_path, [f"{i:02}.png" for i in range(20)])
    recipe = {**SMALL, "window": (8, 4)}  # two steps of 4 images a window
    steps = data.Steps(data.Folder(tmp_path), recipe, seed=0)
    assert steps.per_epoch == 5  # an epoch is as many steps as without a window
    seen = [torch.cat([steps.batch(2 * w + s)[3] for s in range(2)]).tolist() for w in range(6)]
    assert all(len(set(window)) == 8 for window in seen)
    for one, next_one in itertools.pairwise(seen):
        assert len(set(one) & set(next_one)) == 4  # the window moves on by its stride
    order = [number for window in seen[:5] for number in sorted(set(window) - set(seen[(seen.index(window) - 1) % 5]))]
    assert sorted(order) == list(range(20))  # five strides go once round the folder
    assert set(seen[5]) == set(seen[0])
    assert seen[5] != seen[0]  # in another order
    pixels = [
        steps.batch(0)[0][0][steps.batch(0)[3] == seen[0][0]],
        steps.batch(10)[0][0][steps.batch(10)[3] == seen[0][0]],
    ]
    assert len(pixels[1]) == 0 or not torch.equal(*pixels)  # seen again in other views


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_survey_looks_at_every_image_once_and_fills_up_with_the_first(tmp_path, world_size):
    draw(tmp_path, [f"{i:02}.png" for i in range(10)])
    folder = data.Folder(tmp_path)
    looks = [data.Survey(folder, SMALL, 0, rank, world_size) for rank in range(world_size)]
    assert {len(look) for look in looks} == {3}
    seen = torch.cat([look[i][1] for i in range(3) for look in looks])
    assert seen.tolist() == [*range(10), 0, 1]
    pixels, indices = looks[0][0]
    assert len(pixels) == 1
    assert torch.equal(pixels[0][0], torch.from_numpy(views.centre(folder.image(int(indices[0])), 16).copy()))


def test_a_survey_may_draw_random_views(tmp_path):
    draw(tmp_path, [f"{i:02}.png" for i in range(4)])
    look = data.Survey(data.Folder(tmp_path), {**SMALL, "size": (16, 8)}, 0, number=2)
    pixels, _ = look[0]
    assert [x.shape for x in pixels] == [(4, 16, 16, 3), (4, 8, 8, 3)]
    assert all(torch.equal(a, b) for a, b in zip(pixels, look[0][0], strict=True))
