"""The blocks of MobileNetV2 (Sandler et al., 2018, table 1) that the picture models are made of."""

import torch
from torch import nn


def convolution(wide: int, out: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Module:
    """Convolution, batch normalisation, ReLU6; the borders padded."""
    return nn.Sequential(
        nn.Conv2d(wide, out, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the width, 3x3 in each channel, 1x1 back without activation."""

    def __init__(self, wide: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = wide * expansion
        self.adds = stride == 1 and wide == out
        self.block = nn.Sequential(
            convolution(wide, inner, 1),
            convolution(inner, inner, 3, stride=stride, groups=inner),
            nn.Sequential(nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, wide, h, w] to [n, out, h/stride, w/stride]."""
        return x + self.block(x) if self.adds else self.block(x)


def fused(model: nn.Module) -> nn.Module:
    """The trained model with every batch normalisation folded into the convolution before it."""
    for part in model.modules():
        if isinstance(part, nn.Sequential) and len(part) > 1 and isinstance(part[0], nn.Conv2d):
            if not isinstance(part[1], nn.BatchNorm2d):
                continue
            part[0] = nn.utils.fusion.fuse_conv_bn_eval(part[0].eval(), part[1].eval())
            part[1] = nn.Identity()
    return model.eval()
