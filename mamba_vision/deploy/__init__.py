"""Deployment: models as ONNX files, and inference with them without PyTorch."""
