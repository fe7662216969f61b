"""Every way to compute kernel basis attention, against the definition."""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.kernel_basis import build, kernel_basis_attention
from models.kernel_basis.cpu import NativeKernelBasis, _numbers
from models.kernel_basis.operator import (
    BlockedKernelBasis,
    kernel_basis_convolution,
    kernel_basis_reference,
    native_kernel_basis_works,
)
from tests.models.kernel_basis.operator_inputs import exactly, inputs_of, relative_error, with_gradients

Operator = Callable[..., Tensor]


def blocked(*inputs: object) -> Tensor:
    return BlockedKernelBasis.apply(*inputs)  # type: ignore[no-any-return, no-untyped-call]


def compiled(*inputs: object) -> Tensor:
    if not native_kernel_basis_works():
        pytest.skip("no C++ compiler here: the compiled form is not tested")
    return NativeKernelBasis.apply(*inputs, False)  # type: ignore[no-any-return, no-untyped-call]


def compiled_half(*inputs: object) -> Tensor:
    if not native_kernel_basis_works():
        pytest.skip("no C++ compiler here: the compiled form is not tested")
    return NativeKernelBasis.apply(*inputs, True)  # type: ignore[no-any-return, no-untyped-call]


@pytest.mark.parametrize("operator", [blocked, compiled, kernel_basis_convolution, kernel_basis_attention])
def test_random_shapes_equal_the_definition(operator: Operator) -> None:
    choose = random.Random(0)
    torch.manual_seed(0)
    for _ in range(50):
        groups, depth, kernel_size = (
            choose.choice((1, 2, 3)),
            choose.choice((1, 2, 3, 4, 6)),
            choose.choice((1, 3, 5)),
        )
        shape = (choose.randint(1, 3), groups, depth, choose.randint(1, 40), choose.randint(1, 70))
        inputs = inputs_of(*shape, choose.randint(1, 40), kernel_size, torch.float32)
        if choose.random() < 0.5:
            inputs[0] = inputs[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        if choose.random() < 0.5:
            inputs[1] = inputs[1].detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
        expected = with_gradients(
            kernel_basis_reference,
            [t.detach().double().requires_grad_() for t in inputs],
            kernel_size,
            groups,
        )
        found = with_gradients(operator, inputs, kernel_size, groups)
        for value, right in zip(found, expected, strict=True):
            assert value.shape == right.shape
            assert relative_error(value, right) < 1e-5, shape


@pytest.mark.parametrize("operator", [blocked, compiled])
@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("depth", [2, 4])
def test_images_of_many_bands_equal_the_definition(operator: Operator, kernel_size: int, depth: int) -> None:
    torch.manual_seed(1)
    inputs = inputs_of(2, 2, depth, 61, 130, 32, kernel_size, torch.float32)
    expected = with_gradients(
        kernel_basis_reference, [t.detach().double().requires_grad_() for t in inputs], kernel_size, 2
    )
    for value, right in zip(with_gradients(operator, inputs, kernel_size, 2), expected, strict=True):
        assert relative_error(value, right) < 1e-5


@pytest.mark.parametrize(("height", "width"), [(2, 16), (6, 16), (16, 16), (2, 48), (64, 64), (22, 160)])
@pytest.mark.parametrize("bases", [1, 17, 32])
@pytest.mark.parametrize("last", [False, True])
def test_rows_in_pairs_equal_the_definition(height: int, width: int, bases: int, last: bool) -> None:
    torch.manual_seed(height)
    inputs = inputs_of(2, 3, 4, height, width, bases, 3, torch.float32)
    if last:
        inputs[:2] = [
            t.detach().contiguous(memory_format=torch.channels_last).requires_grad_() for t in inputs[:2]
        ]
    expected = exactly(inputs, 3, 3)
    for value, right in zip(with_gradients(compiled, inputs, 3, 3), expected, strict=True):
        assert relative_error(value, right) < 1e-5
    halves = [t.detach().bfloat16().requires_grad_() for t in inputs]
    cast = with_gradients(kernel_basis_reference, halves, 3, 3)
    expected = exactly(halves, 3, 3)
    found = with_gradients(kernel_basis_attention, halves, 3, 3)
    for value, rounded, right in zip(found, cast, expected, strict=True):
        # Of few numbers the errors are a matter of chance, up to the half unit of one rounding.
        allowed = relative_error(rounded, right) if value.numel() > 1000 else 2**-8
        assert relative_error(value, right) <= 1.01 * allowed


@pytest.mark.parametrize("size", [(2, 3, 4, 16, 16), (1, 2, 4, 6, 48), (2, 2, 2, 9, 33), (1, 2, 3, 7, 20)])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_older_processors_compute_the_same(
    size: tuple[int, int, int, int, int], kernel_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native_kernel_basis_works() or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("no processor with AVX2, or no C++ compiler")
    monkeypatch.setattr(build, "FLAGS", build.compiler_flags("haswell"))
    library = build.load_library.__wrapped__("kernel_basis")
    monkeypatch.setattr("models.kernel_basis.cpu.library", lambda name: library)
    torch.manual_seed(0)
    inputs = inputs_of(*size, 19, kernel_size, torch.float32)
    expected = exactly(inputs, kernel_size, size[1])
    for value, right in zip(with_gradients(compiled, inputs, kernel_size, size[1]), expected, strict=True):
        assert relative_error(value, right) < 1e-5


@pytest.mark.parametrize("operator", [blocked, kernel_basis_attention])
def test_gradients_in_float64_are_those_of_differences(operator: Operator) -> None:
    torch.manual_seed(0)
    inputs = inputs_of(2, 2, 2, 3, 4, 3, 3, torch.float64)
    assert torch.autograd.gradcheck(lambda *tensors: operator(*tensors, 3, 2), inputs)


@pytest.mark.parametrize("operator", [blocked, compiled, kernel_basis_attention])
def test_an_empty_batch_gives_an_empty_image_and_zero_gradients(operator: Operator) -> None:
    inputs = inputs_of(0, 2, 4, 5, 6, 8, 3, torch.float32)
    result, *gradients = with_gradients(operator, inputs, 3, 2)
    assert result.shape == (0, 8, 5, 6)
    assert all(gradient.abs().sum() == 0 for gradient in gradients)


@pytest.mark.parametrize("operator", [blocked, compiled_half])
def test_bfloat16_products_err_like_the_definition_in_bfloat16(operator: Operator) -> None:
    torch.manual_seed(0)
    inputs = inputs_of(2, 2, 4, 17, 23, 32, 3, torch.bfloat16)
    exact = with_gradients(
        kernel_basis_reference, [t.detach().double().requires_grad_() for t in inputs], 3, 2
    )
    cast = with_gradients(kernel_basis_reference, inputs, 3, 2)
    for value, rounded, right in zip(with_gradients(operator, inputs, 3, 2), cast, exact, strict=True):
        assert relative_error(value, right) <= 1.5 * relative_error(rounded, right)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("size", [(2, 2, 4, 70, 32), (1, 1, 3, 1, 1), (3, 2, 2, 5, 16), (0, 2, 4, 5, 6)])
@pytest.mark.parametrize("last", [False, True])
def test_compiled_form_reads_and_writes_bfloat16_as_it_is(
    half: bool, size: tuple[int, int, int, int, int], last: bool
) -> None:
    if not native_kernel_basis_works():
        pytest.skip("no C++ compiler here: the compiled form is not tested")
    torch.manual_seed(0)
    inputs = inputs_of(*size, 33, 3, torch.bfloat16)
    if last:
        inputs[:2] = [
            t.detach().contiguous(memory_format=torch.channels_last).requires_grad_() for t in inputs[:2]
        ]
    wide = [t.detach().double().requires_grad_() for t in inputs]
    expected = with_gradients(kernel_basis_reference, wide, 3, size[1])

    def operator(*given: object) -> Tensor:
        return NativeKernelBasis.apply(*given, half, torch.bfloat16)  # type: ignore[no-any-return, no-untyped-call]

    for value, right in zip(with_gradients(operator, inputs, 3, size[1]), expected, strict=True):
        assert value.dtype == torch.bfloat16
        assert relative_error(value, right) < (8e-3 if half else 3e-3)


@pytest.mark.parametrize("native_code", ["1", "0"])
def test_autocast_trains_and_returns_float32(native_code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if native_code == "0":
        monkeypatch.setattr("models.kernel_basis.operator.native_kernel_basis_works", lambda: False)
    torch.manual_seed(0)
    inputs = inputs_of(1, 2, 4, 9, 11, 32, 3, torch.float32)
    exact = with_gradients(kernel_basis_attention, inputs, 3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        result = kernel_basis_attention(*inputs, 3, 2)
    assert result.dtype == torch.float32
    gradients = torch.autograd.grad(result, inputs, torch.linspace(-1, 1, result.numel()).view_as(result))
    for value, right in zip((result.detach(), *gradients), exact, strict=True):
        assert value.dtype == torch.float32
        assert relative_error(value, right.double()) < 1e-2


@pytest.mark.parametrize("operator", [blocked, compiled, compiled_half])
def test_repeated_runs_on_two_threads_are_equal_bit_for_bit(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    torch.manual_seed(0)
    inputs = inputs_of(3, 4, 4, 33, 47, 32, 3, torch.float32)
    first, second = (with_gradients(operator, inputs, 3, 4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


ALONE = """
import ctypes, sys
import numpy as np
library, given, *files, result = sys.argv[1:]
assert not hasattr(ctypes.CDLL(None), "GOMP_parallel")
arrays = [np.load(file) for file in files]
numbers = np.load(given)
numbers[-len(arrays):] = [array.ctypes.data for array in arrays]
ctypes.CDLL(library).kernel_basis_forward(numbers.ctypes.data_as(ctypes.c_void_p))
np.save(result, arrays[-1])
"""


def test_process_without_threads_of_torch_has_threads_of_its_own(tmp_path: Path) -> None:
    if not native_kernel_basis_works():
        pytest.skip("no C++ compiler here: the compiled form is not tested")
    torch.manual_seed(0)
    inputs = [tensor.detach() for tensor in inputs_of(5, 3, 4, 33, 47, 19, 3, torch.float32)]
    tensors = [*inputs, torch.empty_like(inputs[0])]
    numbers = np.array(_numbers(3, 3, False, tensors))
    numbers[9:11] = 3, 5  # threads, chunks
    files = [str(tmp_path / f"{n}.npy") for n in range(len(tensors) + 2)]
    for file, array in zip(files, [numbers, *(tensor.numpy() for tensor in tensors)], strict=False):
        np.save(file, array)
    subprocess.run([sys.executable, "-c", ALONE, build.library("kernel_basis")._name, *files], check=True)
    expected = compiled(*inputs, 3, 3)
    assert torch.equal(torch.from_numpy(np.load(files[-1])), expected)


def test_compiling_is_foreseen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not native_kernel_basis_works():
        pytest.skip("no C++ compiler here: the compiled form is not tested")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.is_to_be_built("kernel_basis")
    build.load_library.__wrapped__("kernel_basis")
    assert not build.is_to_be_built("kernel_basis")
    monkeypatch.setenv("CXX", "/no/such/compiler")
    assert not build.is_to_be_built("kernel_basis")


def test_switched_off_or_broken_compiler_leaves_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTUNE_NATIVE", "0")
    assert build.load_library.__wrapped__("kernel_basis") == "switched off by RESTUNE_NATIVE=0"
    monkeypatch.setenv("RESTUNE_NATIVE", "1")
    monkeypatch.setenv("CXX", "/bin/false")
    assert str(build.load_library.__wrapped__("kernel_basis")).startswith("not built")
    monkeypatch.setenv("CXX", "/no/such/compiler")
    assert str(build.load_library.__wrapped__("kernel_basis")).startswith("not built")
