"""Human Feedback Inversion: people judge pictures, a text-to-image model stops drawing what they flagged."""

__version__ = "0.1.0"


def load(model, deltas=(), strengths=None, negative=(), device="auto", dtype="float32", configs=""):
    """A plain diffusers pipeline with the concepts off; see hfi.export.serving.load. Imports torch when it is called.

    >>> pipeline = hfi.load("CompVis/stable-diffusion-v1-4", deltas=["weapon.safetensors"], strengths=[1.0])
    """
    from hfi.export.serving import load

    return load(model, deltas, strengths, negative, device, dtype, configs)
