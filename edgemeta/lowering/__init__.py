"""From a meta-trained network and learner to a checked bundle of ONNX graphs.

`bundle` has the whole road. `trace` records a learner's functions; `decompose` and `gradients`, with `planes`, take
torch's operators apart; `rules`, `rules_shapes`, `rules_images` and `algebra` write what is left in ONNX, into a
`graph`; `to_onnx` makes models of it. `int8` rounds a body. `check` holds the graphs against torch, `memory` says what
they take, `manifest` and `card` what a bundle is, `replace` puts it in its place, and `far` times it on another device.

Other forms: `to_ort`, and `to_c`, whose parts are `c_source`, `c_graph`, `offsets`, `c_golden` and `c_check`.
"""
