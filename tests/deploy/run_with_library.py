"""Run a model in a process of its own, for widths of vectors, which a process chooses once.

python run_with_library.py LIBRARY MODEL.onnx INPUTS.npz, which writes the first output to INPUTS.npz.npy.
"""

import sys

import numpy as np
import onnxruntime as ort

library, model, inputs = sys.argv[1:]
options = ort.SessionOptions()
options.register_custom_ops_library(library)
with np.load(inputs) as arrays:
    np.save(f"{inputs}.npy", ort.InferenceSession(model, options).run(None, dict(arrays))[0])
