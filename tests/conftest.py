"""Set before any test imports the library: its tensor signatures are checked."""

from jaxtyping import install_import_hook

from tests import typecheck

# the hook writes this name into every module of the library
install_import_hook("minillm", f"{typecheck.__name__}.{typecheck.checked.__name__}")
