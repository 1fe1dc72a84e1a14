"""What a shift is: its specification (:mod:`.spec`, no torch) and the operator ``s2mlp::shift`` (:mod:`.op`)."""
