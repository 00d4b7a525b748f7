"""Search spaces: what can be built, and the one walk from an architecture to its operators.

`presets` has the spaces that a user can name, `named` finds one by the name that its architectures carry. `space` is
the record: slots, segments and the walk; `ops` is the tape that operators are laid on. `staged`, `blocks` and `cells`
are the three sorts of spaces, `moves` are small steps through any of them.
"""
