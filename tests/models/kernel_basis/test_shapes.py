"""Kernel basis attention as the networks call it, against the definition, on many random shapes."""

import random

import pytest
import torch

from models.kernel_basis import kernel_basis_attention, triton_kernel_basis_works
from models.kernel_basis.operator import kernel_basis_reference
from tests.models.kernel_basis.operator_inputs import exactly, inputs_of, relative_error, with_gradients


def test_two_hundred_random_shapes_equal_the_definition() -> None:
    choose = random.Random(7)
    torch.manual_seed(7)
    for number in range(200):
        depth, kernel_size = choose.choice((1, 2, 4)), choose.choice((3, 5))
        groups, bases = choose.randint(1, 3), choose.randint(1, 64)
        sides = [min(choose.randint(1, 40), choose.randint(1, 40)) for _ in range(2)]
        shape = (choose.randint(0, 3), groups, depth, *sides, bases, kernel_size)
        dtype = torch.bfloat16 if number % 5 == 0 else torch.float32
        inputs = inputs_of(*shape, dtype)
        if choose.random() < 0.5:
            inputs[0] = inputs[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        if choose.random() < 0.25:
            inputs[1] = inputs[1].detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
        expected = exactly(inputs, kernel_size, groups)
        found = with_gradients(kernel_basis_attention, inputs, kernel_size, groups)
        cast = with_gradients(kernel_basis_reference, inputs, kernel_size, groups)
        for value, rounded, right in zip(found, cast, expected, strict=True):
            assert value.dtype == dtype
            assert value.shape == right.shape
            if dtype == torch.float32:
                assert relative_error(value, right) < 1e-5, shape
            else:  # of few numbers the errors are a matter of chance, up to the half unit of one rounding
                assert relative_error(value, right) <= max(2 * relative_error(rounded, right), 2**-8), shape


@pytest.mark.parametrize("missing", ["triton", "matrix units", "wish"])
def test_a_gpu_without_what_triton_needs_takes_the_blocked_form(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if missing == "triton" else object())
    monkeypatch.setenv("RESTUNE_NATIVE", "0" if missing == "wish" else "1")
    assert not triton_kernel_basis_works.__wrapped__(torch.device("cuda"), "bf16")
