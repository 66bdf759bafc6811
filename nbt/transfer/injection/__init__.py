"""TLI: injection of the weights of a pretrained teacher into a student of another architecture."""

from nbt.models.batch_norm import estimate_statistics
from nbt.transfer.injection.weight_injection import InjectionReport, inject, tli_similarity

__all__ = ["InjectionReport", "estimate_statistics", "inject", "tli_similarity"]
