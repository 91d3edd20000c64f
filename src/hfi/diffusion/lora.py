"""Low-rank learning with peft (Hu et al. 2021, arXiv 2106.09685): what is learned leaves as an ordinary delta, alpha / r B A."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from hfi.seeds import generator

ADAPTER = "hfi"


@contextlib.contextmanager
def low_rank(network: torch.nn.Module, names: Iterable[str], rank: int, alpha: float, seed: int) -> Iterator[dict[str, torch.nn.Parameter]]:
    """While open, the linear layers among `names` (their weights) carry adapters; yields those that learn, A and B by name.

    A starts from (seed, name), B at zero, so the network is the original one at first. Afterwards no trace of peft is left.
    """
    from peft import LoraConfig, inject_adapter_in_model

    modules = dict(network.named_modules())
    layers = [name.removesuffix(".weight") for name in names if name.endswith(".weight")]
    layers = [name for name in layers if isinstance(modules[name], torch.nn.Linear)]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers, lora_dropout=0.0, bias="none", init_lora_weights=False)
    fixed = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inject_adapter_in_model(config, network, adapter_name=ADAPTER)
    try:
        found = {}
        for layer in layers:
            module = network.get_submodule(layer)
            a, b = module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight
            bound = a.shape[1] ** -0.5  # the uniform law of peft's and torch's own start
            a.data = ((torch.rand(a.shape, generator=generator(seed, "lora", layer)) * 2 - 1) * bound).to(a.device)
            b.data = torch.zeros_like(b.data, dtype=torch.float32)
            found |= {f"{layer}.lora_A": a, f"{layer}.lora_B": b}
        yield found
    finally:
        for layer in layers:
            parent, _, leaf = layer.rpartition(".")
            setattr(network.get_submodule(parent), leaf, network.get_submodule(layer).base_layer)
        for holder in (network,):
            if hasattr(holder, "peft_config"):
                del holder.peft_config
        for parameter in fixed:
            parameter.requires_grad_(False)


def weight_delta(values: Mapping[str, Tensor], rank: int, alpha: float) -> dict[str, Tensor]:
    """{weight: alpha / r B A} of adapters as `low_rank` names them, float32, on the CPU."""
    layers = [name.removesuffix(".lora_A") for name in values if name.endswith(".lora_A")]
    return {
        f"{layer}.weight": (alpha / rank * values[f"{layer}.lora_B"].float() @ values[f"{layer}.lora_A"].float()).cpu() for layer in layers
    }
