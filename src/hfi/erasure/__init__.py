"""Stage 6: the model unlearns what the soft tokens draw; one file per paper over shared parts."""
