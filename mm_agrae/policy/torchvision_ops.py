"""Make `import torchvision` work beside a torch build that cannot load its compiled operators.

transformers' Qwen-VL processors and qwen-vl-utils import torchvision. Its wheels are built against CUDA torch; beside a
CPU-only torch the library does not load and the import stops at "operator torchvision::nms does not exist". Nothing
here calls the two operators that the import asks for, so declaring them is enough.
"""

from __future__ import annotations

import importlib
import sys

import torch

_DECLARATIONS: list[torch.library.Library] = []  # a Library undeclares its operators when it is collected


def import_torchvision() -> None:
    """Import torchvision, declaring its missing operators when, and only when, the plain import fails for them."""
    if "torchvision" in sys.modules:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARATIONS.append(library)
        importlib.import_module("torchvision")
