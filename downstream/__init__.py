"""The downstream tasks: protocols, datasets, engines and evaluation. Imports neither `bench`, `pretrain` nor `results`."""
