"""One file in, one grey picture out, or the reason why not.

`radiographs` reads any file; `dicom`, `dicom_values` and `dicom_display` read DICOM; `high_bit_depth` and
`decoders` read what Pillow does not; `grey` scales to 8 bits; `pixels` resizes, caches and augments;
`annotations` finds and checks boxes and masks of fractures, which `annotation_formats` reads and
`annotation_writers` writes for other programs; `geometry` follows them through resizing and augmentation.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"annotations": ["list_boxes"], "pixels": ["augment", "load_pixels"]}
)
