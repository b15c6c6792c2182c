"""What the API says of models and their downloads, and takes for one."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

Titles = dict[str, str]


class ModelFile(BaseModel):
    name: str = Field(description="In its folder, as workflows name it.")
    folder: str = Field(description="checkpoints, vae or loras")
    kind: str = Field(description="still, motion, vae, lora, or empty if nobody knows")
    family: str = Field(description="sd1, sd2, sdxl, svd, stillmotion (its architecture is in the file), diffusers (a folder), or empty")
    title: str
    bytes: int
    state: str = Field(description="complete, damaged, unknown (something that is not used here) or downloading")
    problem: str = Field(description="Why it is not complete.")
    hint: str
    serves: list[str] = Field(description="Templates that can be made with it.")
    is_bundled: bool = Field(description="It comes with the program.")


class MissingModel(BaseModel):
    node: str
    kind: str
    folder: str
    name: str
    path: str = Field(description="Where it goes, in the data directory.")
    nearest: str | None = Field(description="A name like it that is there.")
    known: str | None = Field(description="The id of a known model: it can be fetched.")


class TemplateModels(BaseModel):
    id: str
    title: Titles
    kinds: list[str] = Field(description="The kinds of models that it can be made with.")
    missing: list[MissingModel]


class KnownModelAnswer(BaseModel):
    id: str
    title: str
    repo: str
    file: str
    folder: str
    name: str
    path: str
    kind: str
    family: str
    about_bytes: int
    licence: str
    is_gated: bool | None = Field(description="Its licence has to be accepted at the hub first; null if that is not known.")
    about: Titles
    state: str = Field(description="missing, downloading, complete, damaged or unknown")


class ModelsAnswer(BaseModel):
    models: list[ModelFile]
    templates: list[TemplateModels]
    known: list[KnownModelAnswer]
    folders: dict[str, str] = Field(description="Where files go; for admins the real paths.")
    can_download: bool = Field(description="You may start downloads.")
    is_offline: bool = Field(description="HF_HUB_OFFLINE is set: nothing can be fetched.")
    endpoint: str = Field(description="The hub, or a mirror of it.")


class DownloadError(BaseModel):
    code: str
    message: str
    hint: str


class DownloadAnswer(BaseModel):
    id: str
    repo: str
    file: str
    folder: str
    name: str
    state: str = Field(description="waiting, checking (what is here already), running, done, failed or canceled")
    bytes: int
    total_bytes: int | None
    bytes_per_second: int | None
    remaining_seconds: float | None
    error: DownloadError | None


class DownloadList(BaseModel):
    downloads: list[DownloadAnswer]


class DownloadRequest(BaseModel):
    """Either `model`, the id of a known one, or `repo` and `file`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"model": "svd_xt"}})
    model: str = Field("", max_length=200, description="The id of a known model, or the name of its file.")
    repo: str = Field("", max_length=200, examples=["stabilityai/stable-video-diffusion-img2vid-xt"])
    file: str = Field("", max_length=500, examples=["svd_xt.safetensors"])
    folder: str = Field("checkpoints", max_length=50, description="checkpoints, vae or loras")
    name: str = Field("", max_length=300, description="What to call it there; else as it is called at the hub.")
