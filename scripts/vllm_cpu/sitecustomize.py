"""On PYTHONPATH, lets vLLM's processes import torchvision beside a CPU build of torch.

torchvision's wheels are built against CUDA torch, so their operators do not load there, and its import stops at the
first two that it asks for. Nothing that is used calls them: declaring them is enough. It is done when torchvision is
first imported, so that programs without torch start as fast as ever.
"""

import importlib.abc
import sys


class DeclareFirst(importlib.abc.MetaPathFinder):
    """Finds nothing; declares the operators when somebody looks for torchvision."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            torch._torchvision_declarations = library  # a library takes its operators along when it is collected


sys.meta_path.insert(0, DeclareFirst())
