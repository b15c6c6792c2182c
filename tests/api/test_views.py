"""`/view`: files as they were recorded, and none that is somebody else's or nobody's."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from tests.api.comfy_house import House, house, picture, recorded, replay

HTTP = recorded("http")
ODD = ("view_mp4_preview", "view_png_if_none_match")
RECORDED = [name for name in HTTP if name.startswith("view_") and HTTP[name]["response"]["status"] in (200, 206) and "metadata" not in name]
FILES = {
    "output/ann/ComfyUI_00001_.png": picture(), "output/ann/comfyUI_00003.png": picture(), "output/ann/ComfyUI_00002_.webp": b"RIFF",
    "output/ann/comfyUI_00003.mp4": bytes(49876), "input/ann/up_194870.png": picture(), "output/ann/day/a.png": picture("blue"),
    "output/ann/page.html": b"<script>", "output/ann/drawing.svg": b"<svg>", "output/ann/.half.part": b"x",
    "output/ann/水 a.png": picture(),
    "output/ann/a.mp4.json": b"{}", "output/bo/secret.png": picture(), "temp/bo/t.png": picture(), "input/bo/i.png": picture(),
    "output/ann/clear.png": picture("#ff000080", mode="RGBA"), "output/ann/broken.png": picture()[:40], "outside.png": picture(),
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as made:
        for name, content in FILES.items():
            path = made.data_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (made.data_dir / "output" / "ann" / "link.png").symlink_to(made.data_dir / "output" / "bo" / "secret.png")
        (made.data_dir / "output" / "ann" / "loop.png").symlink_to("loop.png")
        yield made


@pytest.mark.parametrize("name", RECORDED)
def test_files_are_shown(server: House, name: str) -> None:
    wanted, answer = HTTP[name]["response"], replay(server, "ann", HTTP[name])
    assert answer.status_code == wanted["status"]
    assert answer.headers["Content-Type"] == wanted["headers"]["content-type"]
    assert answer.headers["Content-Disposition"] == f"inline; {wanted['headers']['content-disposition']}"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for header in ("accept-ranges", "content-range"):
        assert answer.headers.get(header) == wanted["headers"].get(header)
    if "mp4" in name:
        assert answer.headers["Content-Length"] == wanted["headers"]["content-length"]


def test_what_a_client_has_already_is_not_sent_again(server: House) -> None:
    exchange = HTTP["view_png_if_none_match"]
    for more in ("", "&preview=webp;90"):
        path = exchange["request"]["path"] + more
        first = server.get(path, "ann")
        for headers in (
            {"If-None-Match": first.headers["ETag"]}, {"If-None-Match": f'"other", W/{first.headers["ETag"]}'}, {"If-None-Match": "*"},
            {"If-Modified-Since": first.headers["Last-Modified"]},
        ):  # fmt: skip
            again = server.get(path, "ann", headers=headers)
            assert (again.status_code, again.content) == (exchange["response"]["status"], b"")
            assert again.headers["ETag"] == first.headers["ETag"]
        assert server.get(path, "ann", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("wish", "size"),
    [("&size=320", (320, 240)), ("&size=16", (16, 12)), ("&size=2000", (800, 600)), ("&size=-3", (800, 600)), ("", (800, 600))],
)
def test_a_preview_is_fitted_into_a_size(server: House, wish: str, size: tuple[int, int]) -> None:
    (server.data_dir / "output" / "ann" / "large.png").write_bytes(picture(size=(800, 600)))
    answer = server.get(f"/view?filename=large.png&preview=webp;70{wish}", "ann")
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.size) == ("WEBP", size)
    whole = server.get("/view?filename=large.png&preview=webp;70", "ann")
    assert (answer.headers["ETag"] == whole.headers["ETag"]) == (wish in ("", "&size=-3"))
    again = server.get(f"/view?filename=large.png&preview=webp;70{wish}", "ann", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


def test_head_says_how_long_it_is(server: House) -> None:
    answer = server.ask("HEAD", "/view?filename=comfyUI_00003.mp4", "ann")
    assert (answer.status_code, answer.headers["Content-Length"], answer.content) == (200, "49876", b"")


@pytest.mark.parametrize(("wanted", "status"), [("bytes=-10", 206), ("bytes=49870-", 206), ("bytes=60000-", 416), ("lines=1", 200)])
def test_ranges(server: House, wanted: str, status: int) -> None:
    answer = server.get("/view?filename=comfyUI_00003.mp4", "ann", headers={"Range": wanted})
    assert answer.status_code in (status, 400)
    if status == 206:
        assert int(answer.headers["Content-Length"]) == len(answer.content) in (6, 10)


@pytest.mark.parametrize("name", ["page.html", "drawing.svg"])
def test_what_could_run_is_only_downloaded(server: House, name: str) -> None:
    answer = server.get(f"/view?filename={name}", "ann")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'


def test_names_in_any_script(server: House) -> None:
    answer = server.get("/view", "ann", params={"filename": "水 a.png"})
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == "inline; filename*=utf-8''%E6%B0%B4%20a.png"


@pytest.mark.parametrize("query", ["filename=a.png&subfolder=day", "filename=day/a.png", "filename=day/a.png [output]&type=temp"])
def test_subfolders(server: House, query: str) -> None:
    assert server.get(f"/view?{query}", "ann").content == picture("blue")


def shown(server: House, query: str) -> Image.Image:
    answer = server.get(f"/view?filename=clear.png&{query}", "ann")
    assert answer.status_code == 200
    return Image.open(io.BytesIO(answer.content))


def test_previews_and_channels(server: House) -> None:
    assert (shown(server, "preview=jpeg;50").format, shown(server, "preview=jpeg;50").mode) == ("JPEG", "RGB")
    assert (shown(server, "preview=jpeg;50&channel=rgba").format, shown(server, "preview=webp;90").mode) == ("WEBP", "RGBA")
    for query in ("preview=webp", "preview=nosuch;x", "preview=webp;", "preview=webp;999"):
        assert shown(server, query).format == "WEBP"
    assert (shown(server, "channel=rgb").mode, shown(server, "channel=rgb").getpixel((0, 0))) == ("RGB", (255, 0, 0))
    assert (shown(server, "channel=a").mode, shown(server, "channel=a").getpixel((0, 0))) == ("RGBA", (0, 0, 0, 128))
    assert server.get("/view?filename=clear.png&channel=x", "ann").status_code == 400


@pytest.mark.parametrize("name", ["comfyUI_00003.mp4", "broken.png", "page.html"])
def test_no_preview_of_what_is_no_picture(server: House, name: str) -> None:
    answer = server.get(f"/view?filename={name}&preview=webp;90", "ann")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unreadable_file")
    assert str(server.data_dir) not in answer.text


UPWARDS = (
    "../bo/secret.png", "..%2fbo%2fsecret.png", "%2e%2e/bo/secret.png", "....//bo/secret.png", "..\\bo\\secret.png", "/etc/passwd",
    "//etc/passwd", "../../outside.png", "day/../../bo/secret.png", "bo/secret.png", "file:///etc/passwd", "~/secret", "C:\\secret",
    "..", ".", "/", "%00", "a%00.png", ".half.part", "link.png", "loop.png", "x" * 5000, "day", "day/", "\ufffd", "..%c0%af..%c0%afx",
    "secret.png", "../ann/.half.part", "..;/bo/secret.png", "%252e%252e/bo/secret.png",
)  # fmt: skip


@pytest.mark.parametrize("name", UPWARDS, ids=lambda name: quote(name)[:30])
def test_nothing_outside_one_s_folder(server: House, name: str) -> None:
    for query in (f"filename={name}", f"filename=secret.png&subfolder={name}", f"filename={name}&type=temp", f"filename={name} [input]"):
        answer = server.get(f"/view?{query}&owner=bo", "ann")
        assert answer.status_code in (400, 403, 404), query
        answer = server.get(f"/view?{query}", "ann")
        assert answer.status_code in (400, 403, 404), query
        assert answer.json()["error"]["message"]
        assert str(server.data_dir) not in answer.text


def test_a_file_is_its_owner_s_and_an_admin_s(server: House) -> None:
    for user in ("cy", "bo", "root"):
        server.submit(user, prompt_id=f"of {user}")
        server.work()
    server.submit("bo")
    server.work()
    for user in ("cy", "bo", "root"):
        assert server.get("/view?filename=ComfyUI_00001_.png", user).status_code == 200  # each his own
    assert server.get("/view?filename=ComfyUI_00002_.png", "cy").status_code == 404
    assert server.get("/view?filename=ComfyUI_00002_.png&owner=bo", "cy").status_code == 404
    assert server.get("/view?filename=ComfyUI_00002_.png", "root").status_code == 200
    assert server.get("/view?filename=ComfyUI_00001_.png&owner=cy", "root").status_code == 200
    (server.data_dir / "output" / "root" / "ComfyUI_00001_.png").unlink()
    ambiguous = server.get("/view?filename=ComfyUI_00001_.png", "root")
    assert ambiguous.status_code == 400
    assert "owner=" in ambiguous.json()["error"]["hint"]
    assert server.get("/view?filename=ComfyUI_00001_.png&owner=../ann", "root").status_code == 404


def test_pictures_that_are_too_large_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from api import previews
    from errors import UnreadableFileError

    monkeypatch.setattr(previews, "MAX_PIXELS", 47)
    (tmp_path / "a.png").write_bytes(picture())
    with pytest.raises(UnreadableFileError, match="8x6"):
        previews.converted(tmp_path / "a.png", previews.Wish("webp"))
