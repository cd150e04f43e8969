"""Commands of the command line, one after the other in the same processes: run by torchrun.

python -m torch.distributed.run --standalone --nproc_per_node 2 commands.py '[["train", "recipe.yaml"], ["sft", ...]]'
"""

from __future__ import annotations

import json
import sys

import torch

from mm_agrae.cli.main import app

if __name__ == "__main__":
    torch.set_num_threads(1)
    for words in json.loads(sys.argv[1]):
        app(words, standalone_mode=False)
