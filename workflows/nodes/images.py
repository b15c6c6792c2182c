"""Pictures: from latents and files, scaled, chosen, saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pipelines.parameters import Choice, Number
from pipelines.values import Latents, Mask, Pictures, Saved, VaeSource
from workflows.declare import FileChoice, FilePrefix, node
from workflows.job_context import JobContext
from workflows.saving import save_pictures

if TYPE_CHECKING:
    from pipelines.bench import Bench

SCALING = Choice(("nearest-exact", "bilinear", "area", "bicubic", "lanczos"), "how pixels are made of pixels")
Prefix = FilePrefix("start of the file names; may hold folders and %width%, %year% and so on")
Tile = {"step": 32}


@node("VAEDecode", title="VAE Decode", category="latent", keeps=True)
def decode(bench: Bench, samples: Latents, vae: VaeSource) -> Pictures:
    """Latents to pictures."""
    return bench.decode(vae, samples)


@node("VAEDecodeTiled", title="VAE Decode (Tiled)", category="_for_testing", keeps=True)
def decode_tiled(
    bench: Bench,
    samples: Latents,
    vae: VaeSource,
    tile_size: Annotated[int, Number(64, 4096, "side of a tile in pixels", wire=Tile)] = 512,
    overlap: Annotated[int, Number(0, 4096, "taken as a quarter of the tile", wire=Tile)] = 64,
    temporal_size: Annotated[int, Number(8, 4096, "of video models whose latents span frames; those here do not", wire={"step": 4})] = 64,
    temporal_overlap: Annotated[int, Number(4, 4096, "as above", wire={"step": 4})] = 8,
) -> Pictures:
    """Latents to pictures, a square at a time: less memory, soft seams."""
    return bench.decode(vae, samples, tile_size // 8)


@node("VAEEncode", title="VAE Encode", category="latent")
def encode(bench: Bench, pixels: Pictures, vae: VaeSource) -> Latents:
    """Pictures to latents."""
    return bench.encode(vae, pixels)


@node("LoadImage", title="Load Image", category="image")
def load(bench: Bench, job: JobContext, image: Annotated[str, FileChoice("input", "a file in the input folder")]) -> tuple[Pictures, Mask]:
    """A picture that was given."""
    return bench.read_picture(job.folders.picture(image))


@node("ImageScale", title="Upscale Image", category="image/upscaling")
def scale(
    bench: Bench,
    image: Pictures,
    upscale_method: Annotated[str, SCALING],
    width: Annotated[int, Number(0, 16384, "pixels; 0 follows the other side", wire={"step": 1})] = 512,
    height: Annotated[int, Number(0, 16384, "pixels; 0 follows the other side", wire={"step": 1})] = 512,
    crop: Annotated[str, Choice(("disabled", "center"), "whether to cut what does not fit, or to stretch")] = "disabled",
) -> Pictures:
    """Pictures of another size."""
    return bench.scale(image, upscale_method, width, height, is_cropped=crop == "center")


@node("ImageScaleBy", title="Upscale Image By", category="image/upscaling")
def scale_by(
    bench: Bench,
    image: Pictures,
    upscale_method: Annotated[str, SCALING],
    scale_by: Annotated[float, Number(0.01, 8.0, "factor of each side", wire={"step": 0.01})] = 1.0,
) -> Pictures:
    """Pictures larger or smaller by a factor."""
    height, width = (max(1, round(side * scale_by)) for side in image.pixels.shape[1:3])
    return bench.scale(image, upscale_method, width, height)


@node("ImageFromBatch", title="ImageFromBatch", category="image/batch", module="comfy_extras.nodes_images")
def take(
    bench: Bench,
    image: Pictures,
    batch_index: Annotated[int, Number(0, 4095, "the first to take, counted from 0")] = 0,
    length: Annotated[int, Number(1, 4096, "how many")] = 1,
) -> Pictures:
    """Some of several pictures, such as a film's last frame."""
    first = min(batch_index, len(image.pixels) - 1)
    return Pictures(image.pixels[first : first + length].copy(), image.draw)  # a view would keep all of them


@node("ImageBatch", title="Batch Images", category="image")
def join(bench: Bench, image1: Pictures, image2: Pictures) -> Pictures:
    """The second pictures after the first, at their size."""
    height, width = image1.pixels.shape[1:3]
    second = image2 if image2.pixels.shape[1:3] == (height, width) else bench.scale(image2, "bilinear", width, height, is_cropped=True)
    return bench.join(image1, second)


@node("PreviewImage", title="Preview Image", category="image", is_output=True)
def preview(bench: Bench, job: JobContext, images: Pictures) -> Saved:
    """Shows pictures without keeping them."""
    return save_pictures(bench, job, images, "Preview", kind="temp")


@node("SaveImage", title="Save Image", category="image", is_output=True)
def save(bench: Bench, job: JobContext, images: Pictures, filename_prefix: Annotated[str, Prefix] = "ComfyUI") -> Saved:
    """Writes every picture as PNG."""
    return save_pictures(bench, job, images, filename_prefix)


NODES = (decode, decode_tiled, encode, load, scale, scale_by, take, join, preview, save)
