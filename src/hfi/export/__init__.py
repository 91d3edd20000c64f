"""What leaves a study: files for diffusers, AUTOMATIC1111 / Forge and ComfyUI, a model card, and a pipeline with the concepts off."""
