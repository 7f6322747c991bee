"""Ablations as one command: which pretrainings and evaluations one consists of, and doing those that are missing.

arguments → basis (what pretrain.run says of a recipe) → plan (arms and their commands) → state (what is done) →
estimate → runner, or slurm → figure and table. A step is a shell command as a person would type it, run in a process of
its own: nothing here imports torch.
"""
