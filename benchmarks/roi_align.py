"""RoIAlign on the CPU: the gather-sum against torchvision's kernel, forward and backward.

Both sides run in one process that keeps freed memory, as the command line's processes do; else the pages of the result
cost more than the gather-sum itself.

python benchmarks/roi_align.py
"""

import argparse
from collections.abc import Sequence

import torch
import torchvision
from compare import alternate, base_parser, report

from fasterrcnn.cli import options
from fasterrcnn.ops.roi_align import roi_align

CASES = {
    "predict: 1,000 regions, 256 channels, 200x272": (1000, 1, 256, 200, 272, 4),
    "train: 2,048 regions, 128 channels, 4 images of 40x56": (2048, 4, 128, 40, 56, 8),
}
TINY_CASES = {"tiny: 20 regions, 8 channels, 2 images of 20x30": (20, 2, 8, 20, 30, 4)}
ROUNDS = 15


def random_rois(count: int, images: int, height: int, width: int) -> torch.Tensor:
    """Regions of 8 to 158 pixels a side, cut at the border."""
    corner = torch.rand(count, 2) * torch.tensor([width * 0.9, height * 0.9])
    far = torch.minimum(corner + torch.rand(count, 2) * 150 + 8, torch.tensor([float(width), float(height)]))
    return torch.cat([torch.randint(images, (count, 1)).float(), corner, far], dim=1)


def compare(
    count: int, images: int, channels: int, height: int, width: int, stride: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Forward and backward of one case; both sides get the memory layout that suits them."""
    theirs_in = torch.randn(images, channels, height, width)
    ours_in = theirs_in.contiguous(memory_format=torch.channels_last)
    rois = random_rois(count, images, height * stride, width * stride)

    def ours() -> torch.Tensor:
        return roi_align(ours_in, rois, output_size=7, spatial_scale=1 / stride, sampling_ratio=2, aligned=False)

    def theirs() -> torch.Tensor:
        return torchvision.ops.roi_align(theirs_in, rois, 7, 1 / stride, 2, False)

    torch.testing.assert_close(ours(), theirs(), atol=2e-4, rtol=1e-4)
    forward = alternate(ours, theirs, rounds)

    ours_in.requires_grad_()
    theirs_in.requires_grad_()
    ours_out, theirs_out = ours(), theirs()
    theirs_gradient = torch.randn(theirs_out.shape)
    ours_gradient = theirs_gradient.contiguous(memory_format=torch.channels_last)

    def ours_backward() -> torch.Tensor:
        return torch.autograd.grad(ours_out, ours_in, ours_gradient, retain_graph=True)[0]

    def theirs_backward() -> torch.Tensor:
        return torch.autograd.grad(theirs_out, theirs_in, theirs_gradient, retain_graph=True)[0]

    torch.testing.assert_close(ours_backward(), theirs_backward(), atol=1e-3, rtol=1e-3)
    return {"forward": forward, "backward": alternate(ours_backward, theirs_backward, rounds)}


def make_parser() -> argparse.ArgumentParser:
    return base_parser(__doc__)


def main(command: Sequence[str] | None = None) -> None:
    arguments = make_parser().parse_args(command)
    cases, rounds = (TINY_CASES, 1) if arguments.tiny else (CASES, ROUNDS)
    options.configure_process()
    torch.manual_seed(0)
    rows = {
        f"{case}: {direction}": numbers
        for case, shape in cases.items()
        for direction, numbers in compare(*shape, rounds).items()
    }
    report("roi_align", rows, arguments.output)


if __name__ == "__main__":
    main()
