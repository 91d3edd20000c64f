"""`hfi env`: the facts that a bug report needs."""

from __future__ import annotations

from hfi.cli.options import Debug, Json

EPILOG = """Examples:

hfi env

hfi env --json"""


def env(json: Json = False, debug: Debug = False) -> None:
    """Show versions, device, threads, memory and disk."""
    found = gather()
    if json:
        import json as encoder

        print(encoder.dumps(found, indent=1))
        return
    from hfi.cli.tables import show_pairs

    show_pairs("environment", {name: ", ".join(f"{a} {b}" for a, b in value.items()) if isinstance(value, dict) else value
                               for name, value in found.items()})


def gather() -> dict:
    """Versions, device, threads, memory (MiB) and disk (MiB), as plain data."""
    import os
    import shutil

    import torch

    from hfi.diffusion.model import pick_device, pick_dtype
    from hfi.workspace import versions

    device = pick_device("auto")
    page = os.sysconf("SC_PAGE_SIZE")
    return {
        "versions": versions(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else str(device),
        "dtype": str(pick_dtype("auto", device)).removeprefix("torch."),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_mib": page * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "memory_free_mib": page * os.sysconf("SC_AVPHYS_PAGES") // 2**20 if "SC_AVPHYS_PAGES" in os.sysconf_names else None,
        "disk_free_mib": shutil.disk_usage(".").free // 2**20,
        "folder": os.getcwd(),
    }
