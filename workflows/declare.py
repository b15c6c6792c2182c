"""How a node is declared: as one typed Python function.

    @node("RepeatLatentBatch", title="Repeat Latent Batch", category="latent/batch")
    def repeat(bench: Bench, samples: Latents, amount: Annotated[int, Number(1, 64, "how often")] = 1) -> Latents:
        '''What it does, for people.'''

Its signature is all there is to say: bounds, defaults, choices and help come from the annotations. Validation, ComfyUI's
`/object_info`, the form's fields and the order of inputs are made from them. Parameters after a `*` are optional. No torch here.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from errors import InputError
from pipelines.filenames import prefix_parts
from pipelines.parameters import Choice, LoraNames, Number, Switch, Text
from pipelines.values import (
    Audio,
    Conditioning,
    Filenames,
    Film,
    Latents,
    Mask,
    ModelSource,
    MotionConditioning,
    Pictures,
    Saved,
    TextSource,
    VaeSource,
    VisionSource,
)

MISSING = inspect.Parameter.empty
WIRE_TYPES: dict[Any, str] = {
    int: "INT", float: "FLOAT", str: "STRING", bool: "BOOLEAN", ModelSource: "MODEL", TextSource: "CLIP", VaeSource: "VAE",
    VisionSource: "CLIP_VISION", Conditioning: "CONDITIONING", MotionConditioning: "CONDITIONING", Latents: "LATENT", Pictures: "IMAGE",
    Film: "VIDEO", Audio: "AUDIO", Mask: "MASK", Filenames: "VHS_FILENAMES", Saved: "",
}  # fmt: skip


@dataclass(frozen=True)
class FileChoice:
    """One of the files of a kind: checkpoints, vae, loras or input."""

    folder: str
    help: str


@dataclass(frozen=True)
class Extra:
    """An input that ComfyUI's forms do not show and that is taken if it is given, as VideoHelperSuite's formats have them."""

    declaration: Any


@dataclass(frozen=True)
class FilePrefix(Text):
    """How the names of files begin that a node writes; see `pipelines.filenames.next_name`."""

    max_length: int = 300

    def check(self, name: str, value: Any, kind: type) -> None:
        super().check(name, value, kind)
        prefix_parts(value)


Declaration = Number | Choice | Text | Switch | LoraNames | FileChoice


@dataclass(frozen=True)
class Input:
    """One input of a node. `type` as on the wire; a COMBO is a choice. Without a declaration it can only be linked."""

    name: str
    type: str
    declaration: Declaration | None = None
    default: Any = MISSING
    is_optional: bool = False
    is_extra: bool = False

    @property
    def help(self) -> str:
        return self.declaration.help if self.declaration else ""


@dataclass(frozen=True)
class NodeClass:
    """What a function declares. `wants_job`: it is told of the job. `keeps`: its results are worth a place on the disk. `is_early`: it may
    be worked in another thread, before its job begins, since it only names models or reads a prompt. `version` changes when the same
    inputs begin to give another result."""

    name: str
    function: Callable[..., Any]
    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]
    output_names: tuple[str, ...]
    title: str
    category: str
    help: str
    is_output: bool = False
    wants_job: bool = False
    keeps: bool = False
    is_early: bool = False
    version: int = 1
    module: str = "nodes"

    @property
    def hidden(self) -> tuple[str, ...]:
        """What ComfyUI would hand it besides its inputs."""
        return ("prompt", "extra_pnginfo") if self.is_output else ()

    @property
    def is_changing(self) -> bool:
        """Whether the same inputs may give something else the next time: it writes, so it is always run."""
        return self.is_output

    @property
    def samples(self) -> bool:
        """Whether it makes latents with a model, which is what takes long."""
        return "LATENT" in self.outputs and any(one.type == "MODEL" for one in self.inputs.values())


def node(
    name: str,
    *,
    title: str,
    category: str,
    output_names: tuple[str, ...] = (),
    is_output: bool = False,
    keeps: bool = False,
    is_early: bool = False,
    version: int = 1,
    module: str = "nodes",
) -> Callable[[Callable[..., Any]], NodeClass]:
    """Makes a `NodeClass` of a function. The first parameter is the bench; one named `job` gets what there is to know of the job."""

    def declare(function: Callable[..., Any]) -> NodeClass:
        inputs, wants_job = _inputs(name, function)
        outputs = _outputs(function)
        return NodeClass(
            name, function, inputs, outputs, output_names or outputs, title, category, inspect.getdoc(function) or "", is_output, wants_job,
            keeps, is_early, version, module,
        )  # fmt: skip

    return declare


def _inputs(node_name: str, function: Callable[..., Any]) -> tuple[dict[str, Input], bool]:
    found: dict[str, Input] = {}
    _, *parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        if parameter.name == "job":
            continue
        kind = eval(parameter.annotation, function.__globals__) if isinstance(parameter.annotation, str) else parameter.annotation
        declaration, is_extra = None, False
        if typing.get_origin(kind) is Annotated:
            kind, declaration = typing.get_args(kind)[:2]
        if isinstance(declaration, Extra):
            declaration, is_extra = declaration.declaration, True
        optional = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        default = parameter.default
        type_ = "COMBO" if isinstance(declaration, (Choice, FileChoice)) else wire_type(kind)
        if type_ in ("INT", "FLOAT", "STRING", "BOOLEAN") and declaration is None:
            raise TypeError(f"{node_name}.{parameter.name} is a plain {kind.__name__}: annotate it, for its bounds and its help")
        if default is MISSING and isinstance(declaration, (Number, Choice, Switch, Text)):  # a parameter before others that have none
            default = declaration.wire.get("default", MISSING)
        found[parameter.name] = Input(parameter.name, type_, declaration, default, optional, is_extra)
    return found, any(parameter.name == "job" for parameter in parameters)


def _outputs(function: Callable[..., Any]) -> tuple[str, ...]:
    annotation = function.__annotations__["return"]
    kind = eval(annotation, function.__globals__) if isinstance(annotation, str) else annotation
    kinds = typing.get_args(kind) if typing.get_origin(kind) is tuple else (kind,)
    return tuple(name for name in map(wire_type, kinds) if name)


def wire_type(kind: Any) -> str:
    """The name on the wire: of our own types ComfyUI's, of others the class's in capitals. Of `A | None`, A's."""
    members = [one for one in typing.get_args(kind) if one is not type(None)] or [kind]
    return WIRE_TYPES[members[0]] if members[0] in WIRE_TYPES else members[0].__name__.upper()


@dataclass(frozen=True)
class Catalog:
    """The nodes there are, by name."""

    classes: Mapping[str, NodeClass] = field(default_factory=dict)

    @classmethod
    def of(cls, classes: Iterable[NodeClass]) -> Catalog:
        """Raises InputError if two have the same name."""
        found: dict[str, NodeClass] = {}
        for one in classes:
            if one.name in found:
                raise InputError(f"Two nodes are named {one.name}.", "Rename one of them.")
            found[one.name] = one
        return cls(found)

    def __contains__(self, name: object) -> bool:
        return name in self.classes

    def __getitem__(self, name: str) -> NodeClass:
        return self.classes[name]

    def __iter__(self) -> typing.Iterator[str]:
        return iter(self.classes)
