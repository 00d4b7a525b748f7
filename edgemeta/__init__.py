"""edgemeta: name a device, a budget and a few labelled examples; get an ONNX bundle that keeps learning on the device.

Read `edgemeta/pipeline.py` first: it is the whole story, top to bottom.
"""

__version__ = "0.1.0"
