"""The inline engine: Ray's semantics in one process, in the calling thread, for debuggers, teaching and quick tests."""
