"""python -m mamba_vision.deploy classify|segment|restore|fuse|prompt MODEL.onnx INPUT -o OUT"""

from mamba_vision.deploy.command import main

if __name__ == "__main__":
    raise SystemExit(main())
