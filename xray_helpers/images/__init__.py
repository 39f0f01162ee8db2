"""One file in, one grey picture out, or the reason why not."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"pixels": ["augment", "load_pixels"]}
)
