"""Build the ONNX Runtime library of mamba_vision's operators (scans, norms, GELU), and print its path.

    python -m mamba_vision.kernels.native --include /path/to/onnxruntime/include
    python -m mamba_vision.kernels.native --cuda -o mamba_vision_cuda.so
In Python: options = onnxruntime.SessionOptions(); options.register_custom_ops_library(path).
"""

import argparse
import sys

from mamba_vision.kernels.native.build import BuildError, build_ort_cuda_library, build_ort_library, build_torch_library


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mamba_vision.kernels.native",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--include",
        help="folder of ONNX Runtime's header onnxruntime_c_api.h (default: the environment variable ORT_INCLUDE, or "
        "where packages put it)",
    )
    parser.add_argument("-o", "--out", help="where to put the library (default: the cache)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--cuda", action="store_true", help="build the library for ONNX Runtime's CUDA provider instead (needs Triton)"
    )
    which.add_argument("--torch", action="store_true", help="build the library of PyTorch's backend 'native' instead")
    args = parser.parse_args()
    if args.torch and (args.include or args.out):
        parser.error("--torch takes neither --include nor --out: that library belongs in the cache")
    try:
        if args.torch:
            path = build_torch_library()
        else:
            path = (build_ort_cuda_library if args.cuda else build_ort_library)(args.include, args.out)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
