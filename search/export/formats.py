"""The files of an export: weights, ONNX, a PyTorch program, Core ML; each is read again and compared with torch."""

import functools
import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models import DnCNNConfig, KBNetSConfig, ModelConfig, NAFNetConfig, UNetConfig
from models.layers import crop_like, pad_to_multiple
from search.errors import UserError, closest
from search.export.settings import ONNX, WEIGHTS
from search.trial import save_weights

FORMATS = ("safetensors", "onnx", "pt2", "coreml")
USUAL = ("safetensors", "onnx")
PT2, COREML = "model.pt2", "model.mlpackage"
FILES = {"safetensors": WEIGHTS, "onnx": ONNX, "pt2": PT2, "coreml": COREML}
TOLERANCE = 1e-4  # largest difference to torch, in units of image intensity
CHECK_SIZES = ((33, 47), (17, 23), (61, 90))  # or larger: a PyTorch program takes two multiples or more
OPSET = 20
COREML_SIDE = 256  # at most this, and a multiple; the Neural Engine wants images of one size
COMPUTE_UNITS = "ALL"  # CPU, GPU and Neural Engine: Core ML places each operation


def parse_formats(text: str) -> tuple[str, ...]:
    """The formats in `a,b,c`; weights are always among them. `UserError` names one that there is not."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in FORMATS:
            raise UserError(
                f"--format {name}: no such format{closest(name, list(FORMATS))}; allowed: {', '.join(FORMATS)}"
            )
    if "coreml" in names:
        _coremltools()
    return tuple(name for name in FORMATS if name in names or name == "safetensors")


def spandrel_name(config: ModelConfig) -> str | None:
    """Spandrel's name (so also that of chaiNNer and ComfyUI) for the model; None if spandrel cannot load it."""
    if isinstance(config, UNetConfig):
        return "DRUNet" if config.is_drunet else None
    names = {KBNetSConfig: "KBNet", NAFNetConfig: "NAFNet", DnCNNConfig: "DnCNN"}
    return next((name for kind, name in names.items() if isinstance(config, kind)), None)


def write_formats(
    folder: Path,
    model: nn.Module,
    channels: int,
    formats: Sequence[str],
    *,
    half: bool,
    about: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, dict[str, Any]]:
    """Write `model` into `folder` in each of `formats`; facts about each file, with its difference to torch.

    `about` goes into the graph, as text. `half` stores the weights of the safetensors file as float16;
    `model` must hold such numbers then.
    Raises `UserError` for a file that does not restore what torch does.
    """
    found = {"safetensors": _save_weights(folder / WEIGHTS, model, half)}
    ways: dict[str, Callable[[Path, nn.Module, int], dict[str, Any]]] = {
        "onnx": functools.partial(_save_onnx, about=about),
        "pt2": _save_program,
        "coreml": _save_coreml,
    }
    for name, save in ways.items():
        if name in formats:
            found[name] = save(folder / FILES[name], model, channels)
    return found


def round_to_half(model: nn.Module) -> None:
    """Replace the numbers of `model` by the nearest that float16 has. `UserError` for one out of its range."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                rounded = tensor.half()
                if not bool(rounded.isfinite().all()):
                    largest = float(tensor.abs().max())
                    raise UserError(
                        f"--half: {name} holds {largest:.3g}, float16 ends at 65504; export without"
                    )
                tensor.copy_(rounded)


def check_sizes(multiple: int) -> list[tuple[int, int]]:
    """Heights and widths at which files are compared with torch; no side is padded to less than two multiples."""
    least = 2 * multiple - 1
    return [(max(height, least), max(width, least)) for height, width in CHECK_SIZES]


def difference(run: Callable[[Tensor], Tensor], model: nn.Module, channels: int, what: str) -> float:
    """The largest difference between `run`, which takes sides that are multiples, and `model` at odd sizes.

    Raises `UserError` if it is more than rounding.
    """
    largest, multiple = 0.0, int(model.size_multiple)  # type: ignore[arg-type]
    for size in check_sizes(multiple):
        image = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = model(image)
            found = crop_like(run(pad_to_multiple(image, multiple)), image)
        apart = (found - expected).abs().max()
        largest = float(apart) if not apart <= largest else largest  # keeps what is no number
    if not largest <= TOLERANCE:
        raise UserError(f"{what} differs from torch by {largest:.1e} (allowed: {TOLERANCE}); not exported")
    return largest


class _Body(nn.Module):
    """The part of a model that goes into a graph: sizes are multiples already."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, degraded: Tensor) -> Tensor:
        restored: Tensor = self.model.body(degraded)  # type: ignore[operator]
        return restored


def _save_weights(path: Path, model: nn.Module, half: bool) -> dict[str, Any]:
    save_weights(path, model, torch.float16 if half else torch.float32)
    tensors = load_file(path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensors[name].to(tensor.dtype), tensor), f"{name} was not stored as it is"
    return {"dtype": "float16" if half else "float32", "largest_difference_to_torch": 0.0}


def _any_size(*axes: int) -> dict[str, Any]:
    return {"degraded": dict.fromkeys(axes, torch.export.Dim.DYNAMIC)}


def _describe(path: Path, about: Mapping[str, object]) -> None:
    """Name the axes of a graph, and write down in it what a program must know to use it."""
    graph = onnx.load(str(path))
    for image in (*graph.graph.input, *graph.graph.output):
        sides = image.type.tensor_type.shape.dim
        for place, axis in ((0, "batch"), (2, "height"), (3, "width")):
            sides[place].dim_param = axis
    onnx.helper.set_model_props(graph, {name: str(value) for name, value in about.items()})
    onnx.save(graph, str(path))


def _save_onnx(
    path: Path, model: nn.Module, channels: int, about: Mapping[str, object] = MappingProxyType({})
) -> dict[str, Any]:
    multiple = int(model.size_multiple)  # type: ignore[arg-type]
    # Sizes of 1 would be taken for constants.
    example = torch.rand(2, channels, 4 * multiple, 6 * multiple)
    # The exporter misses torchvision, which nothing here uses, and its libraries use deprecated names.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Body(model),
            (example,),
            input_names=["degraded"],
            output_names=["restored"],
            dynamic_shapes=_any_size(0, 2, 3),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    _forget_origin(program.model)
    program.save(str(path))
    _describe(path, {**about, "channels": channels, "size_multiple": multiple})
    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(session.run(None, {"degraded": images.numpy()})[0]))

    apart = difference(run, model, channels, "the ONNX graph")
    one, other = torch.rand(
        2, 1, channels, 3 * multiple, 5 * multiple, generator=torch.Generator().manual_seed(0)
    )
    both = run(torch.cat([one, other]))
    together = float((both - torch.cat([run(one), run(other)])).abs().max())
    if not together <= TOLERANCE:
        raise UserError(
            f"the ONNX graph restores two images together otherwise than one by one, by {together:.1e}"
        )
    return {"opset": OPSET, "largest_difference_to_torch": apart}


def _forget_origin(model: Any) -> None:
    """Remove the source lines that the exporter notes in an onnx_ir model: they name folders of this machine."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for part in (graph, *graph.all_nodes()):
            part.metadata_props.clear()
            part.doc_string = None
        for node in graph.all_nodes():
            for value in node.outputs:
                value.metadata_props.clear()
    model.metadata_props.clear()


def _save_program(path: Path, model: nn.Module, channels: int) -> dict[str, Any]:
    multiple = int(model.size_multiple)  # type: ignore[arg-type]
    example = torch.rand(1, channels, 4 * multiple, 6 * multiple)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own parts
        program = torch.export.export(_Body(model), (example,), dynamic_shapes=_any_size(2, 3))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # names folders of this machine
        torch.export.save(program, path)
        # torch unpickles parts of such a file, so only the one written a moment ago is ever opened.
        again = torch.export.load(path).module()
    apart = difference(again, model, channels, "the PyTorch program")
    version = torch.__version__.partition("+")[0]
    return {"torch": version, "smallest_side": 2 * multiple, "largest_difference_to_torch": apart}


def _coremltools() -> Any:
    # It reports that it can convert but not run on Linux, and that it knows older versions of torch only.
    logging.getLogger("coremltools").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            import coremltools
    except ImportError:
        raise UserError("--format coreml: needs coremltools; pip install 'restune[coreml]'") from None
    return coremltools


def _save_coreml(path: Path, model: nn.Module, channels: int) -> dict[str, Any]:
    """An mlprogram that computes in float16, for images of one size. It is not run: only macOS can."""
    tools = _coremltools()
    multiple = int(model.size_multiple)  # type: ignore[arg-type]
    side = max(COREML_SIDE // multiple, 1) * multiple
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.export.export(_Body(model), (torch.rand(1, channels, side, side),))
            made = tools.convert(
                program.run_decompositions({}),
                convert_to="mlprogram",
                outputs=[tools.TensorType(name="restored", dtype=np.float32)],
                minimum_deployment_target=tools.target.iOS16,
                compute_precision=tools.precision.FLOAT16,
                compute_units=tools.ComputeUnit[COMPUTE_UNITS],
                skip_model_load=True,
            )
            made.save(str(path))
            again = tools.models.MLModel(str(path), skip_model_load=True).get_spec().description
    except Exception as error:  # its errors have no common type
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"--format coreml: coremltools cannot convert this model: {reason}") from None
    shape = list(again.input[0].type.multiArrayType.shape)
    names = [again.input[0].name, again.output[0].name]
    assert (shape, names) == ([1, channels, side, side], ["degraded", "restored"]), (shape, names)
    return {
        "coremltools": tools.__version__,
        "precision": "float16",
        "compute_units": COMPUTE_UNITS,
        "side": side,
        "largest_difference_to_torch": None,
    }
