"""The only rooms that know diffusers and transformers: models, text conditions, sampling, prompt sets."""
