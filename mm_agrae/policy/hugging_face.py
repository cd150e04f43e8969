"""The door to transformers and qwen-vl-utils, which both import torchvision.

torchvision's wheels are built against CUDA torch; beside a CPU-only torch their library does not load and the import
stops at "operator torchvision::nms does not exist". Nothing here calls the two operators that the import asks for, so
declaring them is enough.
"""

from __future__ import annotations

import importlib
import sys

import torch

_DECLARATIONS: list[torch.library.Library] = []  # a Library undeclares its operators when it is collected


def _import_torchvision() -> None:
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


_import_torchvision()
import transformers  # noqa: E402 - after torchvision can be imported
from qwen_vl_utils.vision_process import smart_resize  # noqa: E402

# Models here load in a moment; bars would only break the lines of a run's log.
transformers.utils.logging.disable_progress_bar()

__all__ = ["smart_resize", "transformers"]
