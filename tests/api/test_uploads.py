"""`/upload/image` and `/upload/mask`: as recorded, and with what should not come in."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.api.comfy_house import House, house, picture, recorded, replay

HTTP = recorded("http")
REFUSED = ("upload_image_bad_type", "upload_image_escape", "upload_image_empty_name")  # the first and the last with a 500 there


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house"), max_upload_bytes=200_000) as made:
        yield made


def send(server: House, name: str, content: bytes, user: str = "up", to: str = "image", **fields: str) -> requests.Response:
    return server.post(f"/upload/{to}", user, data=fields, files={"image": (name, content, "image/png")})


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_in_the_order_in_which_it_was_recorded(server: House) -> None:
    def again(name: str, content: bytes) -> None:
        wanted = HTTP[name]["response"]
        fields = {k: v for k, v in HTTP[name]["request"]["form"].items() if k != "image"}
        answer = send(server, "up_194870.png", content, **fields)
        assert answer.status_code == (400 if name in REFUSED else wanted["status"]), answer.text
        if answer.status_code == 200:
            assert (answer.json(), list(answer.json())) == (wanted["body"], list(wanted["body"]))

    folder = server.data_dir / "input" / "up"
    again("upload_image", picture("red"))
    again("upload_image_same_again", picture("red"))
    assert everything(folder) == ["up_194870.png"]
    again("upload_image_other_same_name", picture("blue"))
    again("upload_image_overwrite", picture("green"))
    assert (folder / "up_194870.png").read_bytes() == picture("green")
    again("upload_image_subfolder", picture("red"))
    again("upload_image_temp", picture("red"))
    again("upload_image_bad_type", picture("red"))
    again("upload_image_escape", picture("red"))
    assert everything(folder) == ["sub/dir/up_194870.png", "up_194870 (1).png", "up_194870.png"]
    assert everything(server.data_dir / "temp" / "up") == ["up_194870.png"]
    shown = server.get("/view?filename=up_194870.png&type=input", "up")
    assert shown.content == picture("green")
    assert server.get("/view?filename=up_194870.png&type=input", "other").status_code == 404


def test_forms_that_hold_no_picture(server: House) -> None:
    form, broken = {"Content-Type": "multipart/form-data"}, {"Content-Type": "multipart/form-data; boundary=b"}
    answers = [
        replay(server, "none", HTTP["upload_image_json"]),
        server.post("/upload/image", "none"),
        server.post("/upload/image", "none", files={"other": ("a.png", picture())}),
        server.post("/upload/image", "none", data={"image": "text"}),
        server.post("/upload/image", "none", files=[("image", ("a.png", picture())), ("image", ("b.png", picture()))]),
        server.post("/upload/image", "none", data=b"x", headers=form),
        server.post("/upload/image", "none", data=b"--b\r\nno: disposition\r\n\r\nx\r\n--b--", headers=broken),
        server.post("/upload/image", "none", files={"image": ("a.png", picture())}, data={"subfolder": "x" * 100_000}),
    ]
    assert [(one.status_code, one.json()["error"]["code"]) for one in answers] == [(400, "bad_input")] * len(answers)
    assert everything(server.data_dir / "input" / "none") == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("note.txt", b"hello"), ("page.html", b"<script>"), ("drawing.svg", b"<svg/>"), ("a.png", b"hello"), ("a.png", b""),
     ("a.png", picture()[:45]), ("a.jpg", picture(size=(300, 300), form="JPEG")[:900]), ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n")],
)  # fmt: skip
def test_what_is_no_picture_is_not_kept(server: House, name: str, content: bytes) -> None:
    answer = send(server, name, content, "bad")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in ("bad_input", "unreadable_file")
    assert name in answer.text
    assert str(server.data_dir) not in answer.text
    assert list((server.data_dir / "input").glob("bad/**/*.*")) == []


NAMES = (
    "../a.png",
    "..\\a.png",
    "/a.png",
    "a/../../b.png",
    "sub/a.png",
    ".a.png",
    "..png",
    ".png",
    "a\0.png",
    "a\n.png",
    "x" * 300 + ".png",
)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_that_lead_elsewhere(server: House, name: str) -> None:
    before = everything(server.data_dir)
    raw = b'--b\r\nContent-Disposition: form-data; name="image"; filename="' + name.replace("\\", "\\\\").encode() + b'"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = server.post("/upload/image", "corpus", data=raw + picture() + b"\r\n--b--\r\n", headers=headers)
    assert answer.status_code == 400, answer.text
    assert everything(server.data_dir) == before


@pytest.mark.parametrize("subfolder", ["..", "../bo", "a/../../bo", "/etc", "\\etc", ".hidden", "a/./b", "a\0b", "a/\n", "x" * 300])
def test_folders_that_lead_elsewhere(server: House, subfolder: str) -> None:
    before = everything(server.data_dir)
    for to in ("image", "mask"):
        assert send(server, "a.png", picture(), "corpus", to, subfolder=subfolder).status_code == 400
    assert everything(server.data_dir) == before


def test_a_folder_that_is_a_link_out(server: House) -> None:
    folder = server.data_dir / "input" / "linked"
    folder.mkdir(parents=True)
    (folder / "out").symlink_to(server.data_dir)
    assert send(server, "a.png", picture(), "linked", subfolder="out").status_code == 400


def test_too_much_is_not_read_to_its_end(server: House) -> None:
    answer = send(server, "a.png", bytes(300_000), "large")
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")

    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        for _ in range(40):
            yield bytes(10_000)

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert server.post("/upload/image", "large", data=chunks(), headers=headers).status_code == 413


def test_many_with_one_name_at_once(server: House) -> None:
    import concurrent.futures

    colors = ["red", "green", "blue", "red", "green", "blue"]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        names = [one.json()["name"] for one in pool.map(lambda color: send(server, "same.png", picture(color), "many"), colors)]
    folder = server.data_dir / "input" / "many"
    assert everything(folder) == ["same (1).png", "same (2).png", "same.png"]
    assert all((folder / name).read_bytes() == picture(color) for name, color in zip(names, colors, strict=True))


def masked(server: House, original: Any, mask: bytes) -> requests.Response:
    return send(server, "masked.png", mask, "mask", "mask", original_ref=original if isinstance(original, str) else json.dumps(original))


def test_a_mask_becomes_the_picture_s_transparency(server: House) -> None:
    assert send(server, "original.png", picture("red"), "mask").status_code == 200
    reference = {"filename": "original.png", "subfolder": "", "type": "input"}
    answer = masked(server, reference, picture("#00ff0040", mode="RGBA"))
    assert answer.json() == {"name": "masked.png", "subfolder": "", "type": "input"}
    made = Image.open(io.BytesIO((server.data_dir / "input" / "mask" / "masked.png").read_bytes()))
    assert (made.size, made.mode, made.getpixel((0, 0))) == ((8, 6), "RGBA", (255, 0, 0, 64))
    assert everything(server.data_dir / "input" / "mask") == ["masked.png", "original.png"]


@pytest.mark.parametrize(
    ("original", "status"),
    [({"filename": "no.png", "type": "input"}, 404), ({"filename": "../up/up_194870.png", "type": "input"}, 400), ("", 400), ("[]", 400),
     ({"filename": "original.png", "type": "nosuch"}, 400), ({}, 404), ({"filename": "/etc/passwd", "type": "input"}, 400)],
)  # fmt: skip
def test_a_mask_without_its_picture(server: House, original: Any, status: int) -> None:
    assert masked(server, original, picture("#00ff0040", mode="RGBA")).status_code == status
