"""The library's plain U-Net in PyTorch, layer by layer: the peer of the speed comparisons.

``python -m benchmarks.torch_unet`` checks that both have the same parameters and give the same
probabilities from the same weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class TorchUNet(nn.Module):
    """The network of `unet_lib.build_unet(UNetConfig(filters=..., depth=...))`."""

    def __init__(self, filters: int = 16, depth: int = 4) -> None:
        super().__init__()
        self.depth = depth
        self.layers = nn.ModuleDict()
        widths = [filters * 2**level for level in range(depth + 1)]
        for level, width in enumerate(widths):
            self._add_block(f"down{level}", widths[level - 1] if level else 1, width)
        for level in reversed(range(depth)):
            width = widths[level]
            self.layers[f"up{level}_conv_transpose"] = nn.ConvTranspose2d(2 * width, width, 2, 2)
            self._add_block(f"up{level}", 2 * width, width)
        self.layers["logits"] = nn.Conv2d(filters, 1, 1)

    def _add_block(self, name: str, channels: int, width: int) -> None:
        for index in range(2):
            inputs = width if index else channels
            self.layers[f"{name}_{index}_conv"] = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
            self.layers[f"{name}_{index}_norm"] = nn.BatchNorm2d(width, eps=1e-3, momentum=0.05)

    def _block(self, x: torch.Tensor, name: str) -> torch.Tensor:
        for index in range(2):
            x = self.layers[f"{name}_{index}_conv"](x)
            x = F.relu(self.layers[f"{name}_{index}_norm"](x), inplace=True)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return probabilities (N, 1, H, W) float32 of images (N, 1, H, W) in [0, 1]."""
        skips = []
        for level in range(self.depth + 1):
            x = self._block(F.max_pool2d(x, 2) if level else x, f"down{level}")
            skips.append(x)
        for level in reversed(range(self.depth)):
            x = self.layers[f"up{level}_conv_transpose"](x)
            x = self._block(torch.cat([skips[level], x], 1), f"up{level}")
        with torch.autocast("cpu", enabled=False):  # the last layer is float32 in both
            return torch.sigmoid(self.layers["logits"](x.float()))


def count_parameters(network: nn.Module) -> int:
    """Count the numbers stored, moving statistics included, as `keras.Model.count_params` does."""
    state = network.state_dict().items()
    return sum(v.numel() for name, v in state if not name.endswith("num_batches_tracked"))


def copy_weights(source: Any, target: TorchUNet) -> None:
    """Copy the weights of a Keras network of the same layers, by their names."""
    for name, layer in target.layers.items():
        values = [torch.from_numpy(np.array(v)) for v in source.get_layer(name).get_weights()]
        if isinstance(layer, nn.BatchNorm2d):
            places = [layer.weight, layer.bias, layer.running_mean, layer.running_var]
        else:
            values[0] = values[0].permute(3, 2, 0, 1)
            places = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
        with torch.no_grad():
            for place, value in zip(places, values, strict=True):
                place.copy_(value)


def bce_dice(probabilities: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the loss of `unet_lib.objectives.bce_dice`."""
    axes = (1, 2, 3)
    entropy = F.binary_cross_entropy(probabilities, masks)
    overlap, total = (masks * probabilities).sum(axes), masks.sum(axes) + probabilities.sum(axes)
    return entropy + (1.0 - (2.0 * overlap + 1.0) / (total + 1.0)).mean()


def training_step(network: nn.Module, bfloat16: bool) -> Any:
    """Return ``step(images, masks)``: forward, loss, backward, AdamW, as loops do it."""
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-4, fused=True)
    network.train()

    def step(images: torch.Tensor, masks: torch.Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            probabilities = network(images)
        loss = bce_dice(probabilities, masks)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main() -> None:
    """Compare both networks and print the difference."""
    from unet_lib.model import UNetConfig, build_unet

    rng = np.random.default_rng(0)
    for filters, side in ((16, 128), (32, 256)):
        ours = build_unet(UNetConfig(filters=filters), side)
        for layer in ours.layers:  # statistics that are not 0 and 1
            if layer.name.endswith("_norm"):
                layer.set_weights([w + 0.1 * rng.random(w.shape) for w in layer.get_weights()])
        theirs = TorchUNet(filters).eval()
        copy_weights(ours, theirs)
        if ours.count_params() != count_parameters(theirs):
            raise SystemExit(f"{ours.count_params()} and {count_parameters(theirs)} parameters")
        images = rng.random((2, side, side, 1), dtype=np.float32)
        with torch.no_grad():
            found = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        difference = np.abs(np.asarray(ours(images)) - found.numpy()).max()
        print(f"{filters} filters, {side} px: {ours.count_params():,} parameters in both,")
        low, high = float(found.min()), float(found.max())
        print(f"probabilities {low:.3f} to {high:.3f}, largest difference {difference:.1e}")
        if not difference < 1e-4 or high - low < 0.05:
            raise SystemExit("the networks differ")


if __name__ == "__main__":
    main()
