"""What a frozen vision tower made of pictures, kept in host memory: rollout, update and evaluation encode one once.

Shapes: V visual tokens of a picture, H width of the language model.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class PictureFeatures:
    """What the tower makes of one picture.

    Attributes:
        embeddings: [V, H], in the place of the picture's placeholders.
        deepstack: [V, H] each, added to the first hidden states of the language model; none in most families.
    """

    embeddings: Float[Tensor, "V H"]
    deepstack: tuple[Float[Tensor, "V H"], ...] = ()

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.embeddings, *self.deepstack))

    def on(self, device: torch.device) -> PictureFeatures:
        """On the device of the model, behind whatever it does now."""
        return PictureFeatures(
            embeddings=self.embeddings.to(device, non_blocking=True),
            deepstack=tuple(tensor.to(device, non_blocking=True) for tensor in self.deepstack),
        )

    def in_host_memory(self) -> PictureFeatures:
        """In pageable memory; a copy that does not block would pin its memory and round it up to a power of two."""
        return PictureFeatures(embeddings=self.embeddings.cpu(), deepstack=tuple(one.cpu() for one in self.deepstack))


class VisionCache:
    """The most recently used features, of one state of the tower's weights."""

    def __init__(self, max_bytes: int = 0) -> None:
        """Keep up to `max_bytes` of features; 0 keeps none."""
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._kept: OrderedDict[str, PictureFeatures] = OrderedDict()
        self._weights: list[tuple[nn.Parameter, tuple[int, int, torch.dtype, torch.device, str]]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def bind(self, tower: nn.Module, precision: str) -> None:
        """Forget everything, unless it was made by these weights, as they are now, in this precision.

        Every write into a tensor raises its version, and `weight.data = other` moves its address. The parameters
        themselves are held, not their ids, because an id is given anew once its owner is gone. What is not seen is a
        write through `weight.data`, such as `weight.data.mul_(2)`: it leaves both as they are.
        """
        weights = [
            (parameter, (parameter._version, parameter.data_ptr(), parameter.dtype, parameter.device, precision))
            for parameter in tower.parameters()
        ]
        same = len(weights) == len(self._weights) and all(
            parameter is known and state == known_state
            for (parameter, state), (known, known_state) in zip(weights, self._weights, strict=True)
        )
        if not same:
            self._kept.clear()
            self.num_bytes = 0
            self._weights = weights

    def get(self, picture: str) -> PictureFeatures | None:
        """The features of a picture by its hash; None when they are not here."""
        found = self._kept.get(picture)
        if found is not None:
            self._kept.move_to_end(picture)
        return found

    def put(self, picture: str, features: PictureFeatures) -> None:
        """Keep the features of a picture that is not here; the least recently used ones make room."""
        if features.num_bytes > self.max_bytes:
            return
        self._kept[picture] = features.in_host_memory()
        self.num_bytes += features.num_bytes
        while self.num_bytes > self.max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self.num_bytes -= dropped.num_bytes
