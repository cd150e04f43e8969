"""Text and target in, structured verdict out. One verifier for rewards in training and scores in evaluation."""

from mm_agrae.verify.pool import VerifierPool
from mm_agrae.verify.verifier import Question, verify

__all__ = ["Question", "VerifierPool", "verify"]
