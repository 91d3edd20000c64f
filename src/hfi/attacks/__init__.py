"""What tries to bring an erased concept back; one file for each paper, one signature; serves evaluation and hardening.

    attack(model, target, config, seed, run) -> Found

The model is attacked with the weights that it has now: `with applied(model, delta): attack(model, ...)`. docs/attacks.md has
the table of who knows what.
"""
