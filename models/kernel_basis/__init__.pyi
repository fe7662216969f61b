from .build import is_to_be_built as is_to_be_built
from .operator import kernel_basis_attention as kernel_basis_attention
from .operator import triton_kernel_basis_works as triton_kernel_basis_works
from .operator import why_not_compiled as why_not_compiled
