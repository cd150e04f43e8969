"""Text and target in, structured verdict out. One verifier for rewards in training and scores in evaluation."""

from mm_agrae.verify.pool import VerifierPool
from mm_agrae.verify.profiles import PROFILES, Profile, profile_named
from mm_agrae.verify.question import Question
from mm_agrae.verify.verifier import verify

__all__ = ["PROFILES", "Profile", "Question", "VerifierPool", "profile_named", "verify"]
