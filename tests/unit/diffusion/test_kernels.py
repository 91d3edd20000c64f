"""A machine can compute as an older one does: then `dtype: auto` and the manifests say what the older one would."""

from __future__ import annotations

import os
import subprocess
import sys


def test_under_avx2_kernels_auto_is_float32_and_manifests_say_so():
    code = (
        "import torch; from hfi.diffusion.model import pick_dtype; from hfi.workspace import versions; "
        "print(pick_dtype('auto', torch.device('cpu')), versions()['cpu kernels'])"
    )
    env = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    dtype, kernels = done.stdout.split()
    assert dtype == "torch.float32" and kernels in ("AVX2", "DEFAULT")
