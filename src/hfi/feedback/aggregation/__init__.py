"""Many answers to one picture become one: majority, Dawid-Skene, MACE for labels; Bradley-Terry, Plackett-Luce for rankings.

Numpy and scipy only: the labelling page and `hfi label status` use it without torch.
"""
