"""From a meta-trained network and learner to a checked bundle of ONNX graphs."""
