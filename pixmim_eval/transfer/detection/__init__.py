"""Detection: Mask R-CNN on an encoder, trained whole, by ViTDet's published recipe or a short one."""
