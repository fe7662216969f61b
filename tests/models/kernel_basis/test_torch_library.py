"""Kernel basis attention as torch.compile and exports see it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from models.kbnet_s import KernelBasisBlock
from models.kernel_basis.operator import kernel_basis_operation
from tests.models.kernel_basis.operator_inputs import inputs_of, relative_error


@pytest.mark.parametrize("half", [False, True])
def test_compiling_a_block_keeps_the_operator_whole_and_trains_the_same(half: bool) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    block = KernelBasisBlock(4, 8, lightweight=True)
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    def trained(network: Any) -> list[Tensor]:
        features = torch.linspace(-1, 1, 2 * 4 * 17 * 23).view(2, 4, 17, 23)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            result = network(features)
        return [result.detach(), *torch.autograd.grad(result.square().mean(), list(block.parameters()))]

    found = trained(torch.compile(block, backend=keep, fullgraph=True))
    assert [str(node.target) for node in graphs[0].graph.nodes].count("restune.kernel_basis") == 1
    for value, right in zip(found, trained(block), strict=True):
        assert relative_error(value, right.double()) < (2e-2 if half else 1e-5)


def test_the_operation_keeps_the_rules_of_torch() -> None:
    torch.manual_seed(0)
    inputs = inputs_of(2, 2, 4, 5, 7, 9, 3)
    inputs[0] = inputs[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    torch.library.opcheck(kernel_basis_operation, (*inputs, 3, 2, torch.bfloat16, torch.float32))
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs_of(1, 1, 2, 3, 2, 2, 3)]
    assert torch.autograd.gradcheck(
        lambda *tensors: kernel_basis_operation(*tensors, 3, 1, torch.float64, torch.float64), doubles
    )


def test_an_exported_block_is_made_of_torchs_own_operations() -> None:
    program = torch.export.export(KernelBasisBlock(4, 8, lightweight=True), (torch.rand(1, 4, 16, 24),))
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert "aten.conv2d.default" in calls
    assert not any("restune" in call for call in calls)
