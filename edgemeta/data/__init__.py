"""Data sets as compact arrays, and few-shot episodes drawn from them.

`sources` has every data set that a user can name, `dataset` the record that each returns; `splits` holds classes out,
and `episode` draws tasks of what is left. `glyphs` is built in (made by `glyph_select`, `glyph_skeleton` and
`glyph_render`), `digits` comes with scikit-learn; `omniglot`, `folder` and `arrays` read files, by `images` and
`archive`.
"""
