"""The device that trials are trained on, for people."""

import torch


def device_name(device: torch.device) -> str:
    """For example "cpu (2 threads)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
