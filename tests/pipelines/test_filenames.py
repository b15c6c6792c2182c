from __future__ import annotations

import errno
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from errors import InputError, StorageError
from pipelines import filenames
from pipelines.filenames import check_room, next_name, publish

NOON = datetime(2026, 3, 7, 9, 5, 2)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text(name)


def published(target: object, suffix: str = ".png", text: str = "new") -> Path:
    return publish(target, suffix, lambda part: part.write_text(text))


# counters


@pytest.mark.parametrize(
    ("style", "prefix", "there", "expected"),
    [
        ("image", "cat", [], "cat_00001_.png"),
        ("image", "ComfyUI", ["ComfyUI_00011_.png", "ComfyUI_00012_.webp"], "ComfyUI_00013_.png"),
        ("image", "cat", ["cat_00004_.png.json"], "cat_00005_.png"),
        ("image", "cat", ["cat_00004_extra_.jpg"], "cat_00005_.png"),
        ("image", "cat", ["CAT_00004_.png", "cats_00004_.png", "a cat_00009_.png"], "cat_00001_.png"),
        ("image", "cat", ["cat_00004.mp4", "cat_x_.png", "cat_.png", "cat_-7_.png"], "cat_00001_.png"),
        ("image", "cat", ["cat_99999_.png"], "cat_100000_.png"),
        ("image", "a.b[c]", ["axb[c]_00004_.png", "a.bc_00005_.png"], "a.b[c]_00001_.png"),
        # recorded from VideoHelperSuite: the core's files count, whatever their case
        ("video", "comfyUI", ["ComfyUI_00011_.png", "ComfyUI_00012_.webp"], "comfyUI_00013.mp4"),
        ("video", "comfyUI", ["ComfyUI_00012_.webp", "comfyUI_00013.webm", "comfyUI_00013.png"], "comfyUI_00014.mp4"),
        ("video", "film", ["film_00007.png", "film_00008"], "film_00008.mp4"),
        ("video", "film", ["films_00007.mp4", ".film_00007.mp4"], "film_00001.mp4"),
    ],
)
def test_the_number_is_one_above_the_highest(tmp_path, style, prefix, there, expected):
    touch(tmp_path, *there)
    path = published(next_name(tmp_path, prefix, style=style), ".mp4" if style == "video" else ".png")
    assert path == tmp_path / expected
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([*there, expected])


def test_all_suffixes_share_the_count(tmp_path):
    name = next_name(tmp_path, "ComfyUI", style="image")
    assert [published(name, suffix).name for suffix in (".png", ".webp", ".png")] == [
        "ComfyUI_00001_.png",
        "ComfyUI_00002_.webp",
        "ComfyUI_00003_.png",
    ]


def test_a_number_that_is_taken_meanwhile_is_left_alone(tmp_path, monkeypatch):
    link = os.link

    def link_late(part: Path, path: Path) -> None:
        if path.name == "cat_00001_.png":
            touch(tmp_path, path.name)  # another process was faster by a moment
        link(part, path)

    monkeypatch.setattr(filenames.os, "link", link_late)
    assert published(next_name(tmp_path, "cat", style="image")).name == "cat_00002_.png"
    assert (tmp_path / "cat_00001_.png").read_text() == "cat_00001_.png"


def test_a_file_system_that_ignores_case_is_counted_past(tmp_path, monkeypatch):
    monkeypatch.setattr(filenames.NumberedName, "next_number", lambda self: 1)  # CAT_00001_.png, which is not looked at
    touch(tmp_path, "cat_00001_.png", "cat_00002_.png")
    assert published(next_name(tmp_path, "cat", style="image")).name == "cat_00003_.png"


# prefixes


def test_a_prefix_holds_folders_sizes_and_the_time(tmp_path):
    prefix = "sub/%width%x%height%_%year%/%month%-%day%/pic %hour%.%minute%.%second% %model% 100%"
    path = published(next_name(tmp_path, prefix, style="image", width=64, height=48, now=NOON))
    assert path == tmp_path / "sub" / "64x48_2026" / "03-07" / "pic 09.05.02 %model% 100%_00001_.png"


@pytest.mark.parametrize(
    ("prefix", "expected"), [("./a//b/", "a/b"), ("a\\b", "a/b"), ("..a/b..", "..a/b.."), (" a ", " a "), ("猫/🐈", "猫/🐈")]
)
def test_spellings_of_a_prefix(tmp_path, prefix, expected):
    assert published(next_name(tmp_path, prefix, style="video"), ".mp4") == tmp_path / f"{expected}_00001.mp4"


@pytest.mark.parametrize(
    "prefix",
    ["../outside", "a/../../outside", "a/../b", "..", "a/..", "/etc/passwd", "\\\\host\\a", "..\\outside", "C:\\a", "c:a", "//a"],
)
def test_a_prefix_that_leaves_the_folder_is_refused(tmp_path, prefix):
    output = tmp_path / "output"
    output.mkdir()
    with pytest.raises(InputError, match="leads out of the output folder"):
        next_name(output, prefix, style="image")
    assert [*tmp_path.iterdir(), *output.iterdir()] == [output]


def test_a_variable_cannot_lead_out_either(tmp_path):
    with pytest.raises(InputError, match="leads out"):
        next_name(tmp_path, "%width%/a", style="image", width="..")


@pytest.mark.parametrize("prefix", ["", ".", "./", "a\0b", "a\nb", "\x7f", "\ud800", "a" * 201, "猫" * 67 + "/a", None, 7])
def test_a_prefix_that_is_no_name_is_refused(tmp_path, prefix):
    with pytest.raises(InputError, match="filename prefix"):
        next_name(tmp_path, prefix, style="image")
    assert list(tmp_path.iterdir()) == []


def test_the_longest_prefix_fits_with_its_sidecar(tmp_path):
    path = published(next_name(tmp_path, "猫" * 66, style="image"), ".webp")
    assert published(path.with_name(path.name + ".json"), ".json").exists()


@pytest.mark.parametrize("target", ["../outside", "missing/../../outside", "loop"])
def test_a_symbolic_link_cannot_lead_out(tmp_path, target):
    output = tmp_path / "output"
    output.mkdir()
    (tmp_path / "outside").mkdir()
    (output / "loop").symlink_to(target)
    with pytest.raises(InputError, match="leads out of the output folder"):
        next_name(output, "loop/a", style="image")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_symbolic_link_may_lead_elsewhere_inside(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    published(next_name(tmp_path, "b/cat", style="image"))
    assert (tmp_path / "a" / "cat_00001_.png").exists()


def test_the_output_folder_itself_may_be_a_symbolic_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "output").symlink_to("disk")
    published(next_name(tmp_path / "output", "cat", style="image"))
    assert (tmp_path / "disk" / "cat_00001_.png").exists()


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    touch(tmp_path, "file")
    for prefix in ("file/a", "file/deeper/a"):
        with pytest.raises(StorageError, match="Cannot write in"):
            next_name(tmp_path, prefix, style="image")


# publication


def test_what_is_written_is_on_the_disk_before_it_has_a_name(tmp_path, monkeypatch):
    events = []
    fsync, link = os.fsync, os.link

    def record_fsync(handle: int) -> None:
        events.append(("sync", Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    def record_link(part: Path, path: Path) -> None:
        events.append(("link", path))
        link(part, path)

    monkeypatch.setattr(filenames.os, "fsync", record_fsync)
    monkeypatch.setattr(filenames.os, "link", record_link)
    name = next_name(tmp_path, "new/folder/cat", style="image")
    made = tmp_path / "new"
    assert {place for _, place in events} == {tmp_path, made}  # the entries of the new folders
    events.clear()
    path = published(name)
    (first, part), *others = events
    assert (first, part.parent, part.suffix, part.name[0]) == ("sync", path.parent, ".part", ".")
    assert others == [("link", path), ("sync", path.parent)]


def test_a_name_tells_of_each_try_to_take_it(tmp_path, monkeypatch):
    events, fsync = [], os.fsync
    monkeypatch.setattr(filenames.os, "fsync", lambda handle: (fsync(handle), events.append("synced")))

    def told(part: Path, path: Path) -> None:
        events.append((part.parent, part.name[0], part.suffix, part.read_text(), path.name, path.exists()))
        if path.name == "cat_00001_.png":
            path.write_text("somebody was faster")

    name = replace(next_name(tmp_path, "cat", style="image"), told=told)
    assert published(name) == tmp_path / "cat_00002_.png"
    hidden = (tmp_path, ".", ".part", "new")
    assert events == ["synced", (*hidden, "cat_00001_.png", False), (*hidden, "cat_00002_.png", False), "synced"]
    assert (tmp_path / "cat_00001_.png").read_text() == "somebody was faster"


def test_a_name_that_nobody_hears_of_is_the_same_name(tmp_path):
    name = next_name(tmp_path, "cat", style="image")
    assert replace(name, told=print) == name
    assert hash(replace(name, told=print)) == hash(name)


@pytest.mark.parametrize(
    ("raised", "expected"), [(OSError(errno.ENOSPC, "full"), StorageError), (InputError("no"), InputError), (KeyboardInterrupt(), None)]
)
def test_a_listener_that_fails_leaves_nothing(tmp_path, raised, expected):
    def told(part: Path, path: Path) -> None:
        raise raised

    with pytest.raises(expected or type(raised)):
        published(replace(next_name(tmp_path, "cat", style="image"), told=told))
    assert list(tmp_path.iterdir()) == []


def test_a_listener_is_told_where_there_are_no_hard_links_too(tmp_path, monkeypatch):
    def no_links(part: Path, path: Path) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(filenames.os, "link", no_links)
    heard = []
    name = replace(next_name(tmp_path, "cat", style="video"), told=lambda part, path: heard.append((part.exists(), path.name)))
    assert published(name, ".mp4").name == "cat_00001.mp4"
    assert heard == [(True, "cat_00001.mp4")]


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def write(part: Path) -> None:
        part.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(next_name(tmp_path, "cat", style="image"), ".png", write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_file_systems_without_hard_links_work_too(tmp_path, monkeypatch, number):
    def no_links(part: Path, path: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filenames.os, "link", no_links)
    assert published(tmp_path / "cat.png").read_text() == "new"
    assert published(next_name(tmp_path, "cat", style="image")).name == "cat_00001_.png"
    with pytest.raises(InputError, match="exists already"):
        published(tmp_path / "cat.png", text="newer")
    assert (tmp_path / "cat.png").read_text() == "new"

    def fail(self: Path, path: Path) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StorageError, match="broken"):
        published(tmp_path / "dog.png")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cat.png", "cat_00001_.png"]


def test_a_name_that_is_taken_while_writing_is_not_overwritten(tmp_path):
    def write(part: Path) -> None:
        part.write_text("mine")
        touch(tmp_path, "cat.png")

    with pytest.raises(InputError, match="exists already"):
        publish(tmp_path / "cat.png", ".png", write)
    assert (tmp_path / "cat.png").read_text() == "cat.png"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_dangling_link_is_a_name_that_is_taken(tmp_path):
    (tmp_path / "cat.png").symlink_to("nowhere")
    with pytest.raises(InputError, match="exists already"):
        published(tmp_path / "cat.png")
    assert not (tmp_path / "nowhere").exists()


def test_the_suffix_must_say_what_the_file_is(tmp_path):
    with pytest.raises(InputError, match=r"'cat\.jpg' does not end in \.png. Name it 'cat\.png'"):
        published(tmp_path / "cat.jpg")


def test_a_folder_that_fails_to_sync_loses_the_file(tmp_path, monkeypatch):
    fsync = os.fsync

    def fail_on_folders(handle: int) -> None:
        if Path(f"/proc/self/fd/{handle}").readlink().is_dir():
            raise OSError(number, "simulated")
        fsync(handle)

    monkeypatch.setattr(filenames.os, "fsync", fail_on_folders)
    number = errno.ENOSPC
    with pytest.raises(StorageError, match="is full"):
        published(tmp_path / "cat.png")
    assert list(tmp_path.iterdir()) == []
    number = errno.EINVAL  # what a mount says that cannot sync folders at all
    assert published(tmp_path / "cat.png").exists()


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"is full\. Free some space there"),
        (errno.EDQUOT, "is full"),
        (errno.EROFS, r"is read-only for us\. Allow this user"),
        (errno.EACCES, "is read-only for us"),
        (errno.EIO, r"Cannot write in .*: broken\."),
    ],
)
def test_storage_errors_name_the_folder_and_what_to_do(tmp_path, number, message):
    def write(part: Path) -> None:
        raise OSError(number, "broken")

    with pytest.raises(StorageError, match=message) as caught:
        publish(tmp_path / "cat.png", ".png", write)
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint


def test_what_was_left_half_written_long_ago_is_removed(tmp_path):
    old, young = tmp_path / ".old.part", tmp_path / ".young.part"
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    check_room(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == [".young.part"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_a_storage_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="read-only for us"):
        published(tmp_path / "cat.png")
