"""Latency: measured on a device, predicted for any network of a space; and what an inference costs.

Predicting: `table` has the predictors, `cost` adds memory and storage, `batch` answers for millions at once. A device
seen a few times: `unseen` is the predictor, `fewshot` its arithmetic on `basis`, `parts` and `simulate`, `choose` what
to time.

Measuring: `measure` writes a `kit` of networks that `cover` picks, times it by `runners` and makes a profile of what
`visits` reads; `solve` tells operators apart by their `features`. The graphs are those of `onnx_net`, `onnx_int8` and
`onnx_parts`. Far devices: `remote` and `child`, many of them: `inventory` and `farm`. `machine` says which one this is,
`energy` what it draws.

On disk: `profile`; from elsewhere: `public` and `by_hand`. `checks` says what speaks against timings.
"""
