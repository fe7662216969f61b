"""The Triton form of kernel basis attention against the definition: interpreted on the CPU, compiled on a GPU."""

import importlib.util
from collections.abc import Callable, Iterator
from importlib import metadata

import pytest
import torch
from torch import Tensor

from models.kernel_basis import kernel_basis_attention, triton_kernel_basis_works
from models.kernel_basis.operator import kernel_basis_reference
from tests.models.kernel_basis.operator_inputs import exactly, inputs_of, relative_error, with_gradients

pytestmark = [
    pytest.mark.skipif(
        not importlib.util.find_spec("triton"), reason="Triton is not installed: its kernels are not tested"
    ),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of Triton, about its own settings
]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Form = Callable[..., Callable[..., Tensor]]


@pytest.fixture(scope="module")
def form() -> Iterator[Form]:
    """The operator with products of a certain type."""
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            if metadata.version("triton").startswith("3.6"):
                pytest.skip(
                    "the interpreter of Triton 3.6 does not work with numpy 2.4: allowed: 3.7 or newer"
                )
            patch.setenv("TRITON_INTERPRET", "1")
        from models.kernel_basis.triton import TritonKernelBasis

        def with_products(products: str, dtype: torch.dtype = torch.float32) -> Callable[..., Tensor]:
            return lambda *inputs: TritonKernelBasis.apply(*inputs, products, dtype)  # type: ignore[no-untyped-call]

        yield with_products


@pytest.mark.parametrize(
    ("batch", "groups", "depth", "height", "width", "bases", "kernel_size"),
    [
        (2, 2, 4, 7, 11, 32, 3),
        (1, 2, 2, 17, 23, 9, 3),
        (2, 1, 4, 5, 13, 33, 5),
        (1, 2, 2, 3, 70, 8, 5),
        (3, 5, 1, 1, 1, 1, 3),
        (1, 1, 3, 6, 1, 64, 3),
        (1, 2, 4, 1, 19, 5, 1),
        (1, 7, 4, 2, 2, 32, 3),  # few pixels: the groups are shared out
    ],
)
def test_any_size_equals_the_definition(
    form: Form,
    batch: int,
    groups: int,
    depth: int,
    height: int,
    width: int,
    bases: int,
    kernel_size: int,
) -> None:
    torch.manual_seed(0)
    inputs = inputs_of(batch, groups, depth, height, width, bases, kernel_size, device=DEVICE)
    found = with_gradients(form("tf32x3"), inputs, kernel_size, groups)
    for value, right in zip(found, exactly(inputs, kernel_size, groups), strict=True):
        assert value.shape == right.shape
        assert relative_error(value, right) < 1e-5


def test_any_order_in_memory_equals_the_definition(form: Form) -> None:
    torch.manual_seed(0)
    x, attention, weight, bias = (t.detach() for t in inputs_of(2, 2, 4, 9, 14, 12, 3, device=DEVICE))
    strided = [
        x.contiguous(memory_format=torch.channels_last)[:, :, ::2, 1:],
        attention.transpose(2, 3).contiguous().transpose(2, 3)[:, :, ::2, :-1],
        weight.flip(1)[:, ::2],
        bias[:, 1::2],
    ]
    strided[1] = strided[1][:, ::2]
    for tensor in strided:
        tensor.requires_grad_()
    result = form("tf32x3")(*strided, 3, 2)
    one = torch.ones((), device=DEVICE).expand_as(result)  # all strides 0, as the gradient of a sum has them
    found = [result.detach(), *torch.autograd.grad(result, strided, one)]
    wide = [tensor.detach().cpu().double().requires_grad_() for tensor in strided]
    right = kernel_basis_reference(*wide, 3, 2)
    for value, expected in zip(found, [right.detach(), *torch.autograd.grad(right.sum(), wide)], strict=True):
        assert relative_error(value, expected) < 1e-5


@pytest.mark.parametrize(("products", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_errs_like_the_definition_in_it(form: Form, products: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    inputs = inputs_of(1, 2, 4, 7, 13, 32, 3, dtype, DEVICE)
    found = with_gradients(form(products, dtype), inputs, 3, 2)
    cast = with_gradients(kernel_basis_reference, inputs, 3, 2)
    much = 1.5 if DEVICE == "cuda" else 2.5  # the interpreter cuts bfloat16 off instead of rounding it
    for value, rounded, right in zip(found, cast, exactly(inputs, 3, 2), strict=True):
        assert value.dtype == dtype
        assert relative_error(value, right) <= much * relative_error(rounded, right)


def test_inputs_of_several_types_keep_them_in_their_gradients(form: Form) -> None:
    torch.manual_seed(0)
    inputs = inputs_of(1, 2, 4, 5, 7, 8, 3, device=DEVICE)
    inputs[1] = inputs[1].detach().bfloat16().requires_grad_()
    found = with_gradients(form("bf16"), inputs, 3, 2)
    assert [value.dtype for value in found] == [torch.float32, *(tensor.dtype for tensor in inputs)]
    for value, right in zip(found, exactly(inputs, 3, 2), strict=True):
        assert relative_error(value, right) < 1e-2


def test_an_empty_batch_gives_zero_gradients(form: Form) -> None:
    inputs = inputs_of(0, 2, 4, 5, 6, 8, 3, device=DEVICE)
    result, *gradients = with_gradients(form("tf32x3"), inputs, 3, 2)
    assert result.shape == (0, 8, 5, 6)
    assert all(gradient.abs().sum() == 0 for gradient in gradients)


def test_repeated_calls_are_equal_bit_for_bit(form: Form) -> None:
    torch.manual_seed(0)
    inputs = inputs_of(1, 2, 2, 9, 13, 8, 3, device=DEVICE)
    first, second = (with_gradients(form("bf16"), inputs, 3, 2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@needs_gpu
@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_networks_on_a_gpu_use_it_and_large_images_equal_the_definition(
    dtype: torch.dtype, kernel_size: int, depth: int
) -> None:
    products = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "tf32x3"}[dtype]
    assert triton_kernel_basis_works(torch.device("cuda", torch.cuda.current_device()), products)
    torch.manual_seed(0)
    inputs = inputs_of(2, 16, depth, 130, 173, 32, kernel_size, dtype, DEVICE)
    found = with_gradients(kernel_basis_attention, inputs, kernel_size, 16)
    for value, right in zip(found, exactly(inputs, kernel_size, 16), strict=True):
        assert relative_error(value, right) < (1e-5 if dtype == torch.float32 else 1e-2)


@needs_gpu
def test_training_on_a_gpu_takes_no_memory_per_pixel_and_basis() -> None:
    inputs = inputs_of(8, 16, 4, 256, 256, 32, 3, torch.bfloat16, DEVICE)
    with_gradients(kernel_basis_attention, inputs, 3, 16)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = kernel_basis_attention(*inputs, 3, 16)
    torch.autograd.grad(result, inputs, result.detach())
    images = sum(tensor.nbytes for tensor in inputs[:2])
    assert torch.cuda.max_memory_allocated() - before < 4 * images
